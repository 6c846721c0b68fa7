"""Calls to the store that are made until it answers, over a change of lease or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.worker import aside
from celery_ha.worker.aside import Aside
from celery_ha.worker.node import WorkerNode
from celery_ha.worker.revocations import Shared


class Revoked:
    """Celery's set."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.update = self.ids.update

    def __contains__(self, task: str) -> bool:
        return task in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.ids))


class Moody:
    """A store that answers or does not."""

    def __init__(self, *known: str) -> None:
        self.away = False
        self.known = set(known)

    def remember(self, tasks: list[str], _seconds: float) -> None:
        self.known.update(tasks) if not self.away else self._refuse()

    def current(self) -> set[str]:
        return self.known if not self.away else self._refuse()

    def _refuse(self) -> Any:
        raise StoreUnavailable("no answer")


def share(store: Any, insist: Any) -> tuple[Shared, Revoked, dict[str, Any]]:
    """A worker's set, and its commands."""
    revoked = Revoked()

    def revoke(_state: object, task_id: str, **_options: object) -> dict[str, str]:
        revoked.update([task_id])
        return {"ok": f"tasks {task_id} flagged as revoked"}

    commands: dict[str, Any] = {"revoke": revoke, "terminate": revoke}
    return Shared(store, insist, revoked, commands), revoked, commands


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
    shared, *_ = share(store, lambda call: WorkerNode.insist_for_good(node, call))
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


def test_who_revokes_is_told_whether_those_who_come_later_know() -> None:
    # Given a worker that may die at any moment after its answer
    store, owed = Moody(), []
    shared, revoked, commands = share(store, owed.append)
    # When it confirms a revocation, the store has it
    assert commands["revoke"](None, task_id="a") == {"ok": "tasks a flagged as revoked"}
    assert (store.known, owed) == ({"a"}, [])
    # And if the store does not answer, the worker says so, keeps its word and goes on trying
    store.away = True
    assert "not kept" in commands["revoke"](None, task_id="b")["error"]
    assert revoked.ids == {"a", "b"}
    store.away = False
    for call in owed:
        call()
    assert store.known == {"a", "b"}
    # And the next one is confirmed again, if the loop is to wait for that store again
    assert "just not answered" in commands["terminate"](None, task_id="c")["error"]
    shared._quiet_until = 0.0
    assert "ok" in commands["terminate"](None, task_id="d")


def test_revocation_that_the_store_refuses_is_one_all_the_same() -> None:
    def refuse(*_what: object) -> None:
        raise StoreError("not permitted")

    shared, revoked, commands = share(SimpleNamespace(remember=refuse), list[Any]().append)
    assert "not permitted" in commands["revoke"](None, task_id="a")["error"]
    assert revoked.ids == {"a"}
    shared.close()


def test_what_neighbours_tell_keeps_no_loop_waiting_and_is_told_once() -> None:
    """Every worker that starts tells all that it knows to all."""
    store, owed = Moody(), []
    _, revoked, _ = share(store, owed.append)
    revoked.update(["a", "b"])
    assert (store.known, len(owed)) == (set(), 1)
    revoked.update(["a", "b"])
    assert len(owed) == 1


def test_worker_does_not_consume_before_it_knows_what_is_revoked() -> None:
    store, owed = Moody("a"), []
    shared, revoked, _ = share(store, owed.append)
    store.away = True
    with pytest.raises(StoreUnavailable):
        shared.read()
    # And what it may have missed since, it asks for off the loop, until the store answers
    shared.read_again()
    store.away = False
    shared.learn()
    assert not revoked.ids
    for call in owed:
        call()
    assert not revoked.ids
    shared.learn()
    assert revoked.ids == {"a"}


def test_store_that_has_lost_its_memory_is_told_again() -> None:
    store, owed = Moody(), []
    shared, revoked, _ = share(store, owed.append)
    revoked.ids.update({"a", "b"})
    store.known = {"b"}
    shared.read()
    for call in owed:
        call()
    assert store.known == {"a", "b"}


def test_next_worker_of_a_process_has_a_store_of_its_own() -> None:
    first, second, third = Moody(), Moody(), Moody()
    one, revoked, commands = share(first, lambda _call: None)
    two = Shared(second, lambda _call: None, revoked, commands)  # type: ignore[arg-type]
    # When the first ends, though the second has begun before that
    one.close()
    first.away = True
    assert "ok" in commands["revoke"](None, task_id="a")
    two.close()
    Shared(third, lambda _call: None, revoked, commands)  # type: ignore[arg-type]
    assert "ok" in commands["revoke"](None, task_id="b")
    assert (first.known, second.known, third.known) == (set(), {"a"}, {"b"})
    assert revoked.ids == {"a", "b"}
