"""What the unit tests share."""

from __future__ import annotations

import pytest
from celery import _state


@pytest.fixture(autouse=True)
def _own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery offers an app's tasks to every later app of the process: not to those of the next test."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
