"""Calls to the store that are made until it answers, over a change of lease or not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from celery_ha.errors import StoreUnavailable
from celery_ha.worker import aside
from celery_ha.worker.aside import Aside
from celery_ha.worker.node import WorkerNode
from celery_ha.worker.revocations import Shared


class Revoked:
    """Celery's set."""

    def __init__(self) -> None:
        self.update = lambda _ids: None


def test_revocation_told_while_the_store_was_away_outlives_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that hears of a revocation while the store does not answer
    monkeypatch.setattr(aside, "ASK_AGAIN", 0.01)
    node: Any = SimpleNamespace(_life="first", aside=Aside())
    asked, kept = threading.Event(), threading.Event()

    def remember(_tasks: list[str], _seconds: float) -> None:
        asked.set()
        if node._life == "first":
            raise StoreUnavailable
        kept.set()

    store: Any = SimpleNamespace(remember=remember)
    shared = Shared(store, lambda call: WorkerNode.insist_for_good(node, call), Revoked())
    shared.update(["a"])
    assert asked.wait(10)
    # When it is back, and the worker goes on under another lease
    node._life = "second"
    # Then whoever starts later knows it (rule 19)
    assert kept.wait(10)
    node.aside.finish(10)


def test_worker_that_has_said_goodbye_insists_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "ASK_AGAIN", 0.01)
    node: Any = SimpleNamespace(_life="first", aside=Aside())
    asked = threading.Event()

    def never() -> None:
        asked.set()
        raise StoreUnavailable

    WorkerNode.insist_for_good(node, never)
    assert asked.wait(10)
    node._life = None
    node.aside.finish(10)
    assert all(call.done() for call in node.aside._calls)
