"""The marker of this folder's tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: workers killed and frozen at random, by a seed")
