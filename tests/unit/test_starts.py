"""Starts that must be asked for wait for the end of the task before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from celery_ha.worker.starts import Starts


class Request:
    def __init__(self, claim: str) -> None:
        self.claim = claim
        self.message = SimpleNamespace(delivery_tag=claim)


class Loop:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_marked_start_goes_at_once() -> None:
    ran: list[str] = []
    loop = Loop()
    starts = Starts(lambda request: ran.append(request.claim), loop.soon, lambda _claim: True)
    starts(Request("L.1"))
    assert ran == ["L.1"]
    assert not loop.calls


def test_start_that_must_be_asked_for_waits_for_the_next_turn_and_keeps_its_order() -> None:
    ran: list[str] = []
    loop = Loop()
    starts = Starts(lambda request: ran.append(request.claim), loop.soon, lambda claim: claim == "L.3")
    for number in (1, 2, 3):
        starts(Request(f"L.{number}"))
    assert ran == []
    loop.turn()
    assert ran == ["L.1", "L.2", "L.3"]
