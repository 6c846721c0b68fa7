"""The marker of this folder's tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "history: what clients saw of their locks under blows, judged by rules")
