"""What waits for a slot of a pool of greenlets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery.concurrency import prefork, solo, thread
from celery.worker import state

from celery_ha.worker.slots import Slots, slots_of
from celery_ha.worker.waiting import LOOK_EVERY, Waiting


class Request:
    """Something to run."""


class Stage:
    """A pool of two slots, and a timer that is told to go on."""

    def __init__(self) -> None:
        self.ran: list[Request] = []
        self.timed: list[tuple[float, Callable[[], None]]] = []
        self.waiting = Waiting(
            self.ran.append, Slots(lambda: 2), lambda seconds, call: self.timed.append((seconds, call))
        )

    def want(self, count: int) -> list[Request]:
        requests = [Request() for _ in range(count)]
        for request in requests:
            state.reserved_requests.add(request)
            self.waiting(request)
        return requests

    def go_on(self) -> list[float]:
        """Run what is due; returns after how many seconds each was."""
        timed, self.timed = self.timed, []
        for _, call in timed:
            call()
        return [seconds for seconds, _ in timed]


def test_no_more_is_given_than_can_run_and_the_next_when_a_slot_is_free() -> None:
    stage = Stage()
    first, second, third, fourth = stage.want(4)
    assert stage.ran == [first, second]
    # When one ends, in a greenlet that has its slot until it is over
    state.reserved_requests.discard(first)
    stage.waiting.freed()
    assert stage.ran == [first, second]
    # Then the next is given from another one
    assert 0.0 in stage.go_on()
    assert stage.ran == [first, second, third]
    del fourth


def test_slot_that_nobody_tells_of_is_found() -> None:
    stage = Stage()
    first, second, third = stage.want(3)
    state.reserved_requests.discard(second)
    assert stage.go_on() == [LOOK_EVERY]
    assert stage.ran == [first, second, third]
    assert stage.timed == [], "nothing waits: it looks no more"


def test_after_a_reconnect_what_waited_is_not_run() -> None:
    stage = Stage()
    kept = stage.want(3)
    assert stage.waiting.clear() == 0
    state.reserved_requests.clear()
    stage.go_on()
    assert stage.ran == kept[:2]


def test_request_that_cannot_be_processed_keeps_nobody_from_the_slots() -> None:
    stage = Stage()
    first, *_ = kept = stage.want(4)
    process, stage.waiting._process = stage.waiting._process, lambda _request: 1 / 0
    state.reserved_requests.discard(first)
    with pytest.raises(ZeroDivisionError):
        stage.go_on()
    stage.waiting._process = process
    state.reserved_requests.discard(kept[1])
    state.reserved_requests.discard(kept[2])
    stage.go_on()
    assert stage.ran == [kept[0], kept[1], kept[3]]


@pytest.mark.parametrize(("pool", "slots"), [(solo.TaskPool, 1), (thread.TaskPool, 3), (prefork.TaskPool, 0)])
def test_pool_that_is_not_there_has_no_slots(pool: type, slots: int) -> None:
    # Prefork knows its size from its processes; timers of the loop go off after they have been ended
    assert slots_of(pool(1 if pool is solo.TaskPool else 3)) == slots
