"""Starts that must be asked for wait for the end of the task before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from celery.worker import state

from celery_ha.worker.slots import Slots
from celery_ha.worker.starts import Starts


class Request:
    def __init__(self, claim: str) -> None:
        self.claim = claim
        self.message = SimpleNamespace(delivery_tag=claim)


class Answer:
    """What can be read from."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Loop:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def add_reader(self, descriptor: int, call: Callable[[], None]) -> None:
        self.readers[descriptor] = call

    def remove_reader(self, descriptor: int) -> None:
        del self.readers[descriptor]

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Claims:
    """Who marks: what was asked for is marked when the answer is read, except what is refused."""

    def __init__(self, *marked: str, refused: tuple[str, ...] = ()) -> None:
        self.marks = set(marked)
        self.refused = refused
        self.asked: list[list[str]] = []
        self.answer: Answer | None = Answer(7)

    def marked(self, claim: str) -> bool:
        return claim in self.marks

    def ask(self, claims: Sequence[str]) -> Answer | None:
        if self.answer is not None:
            self.asked.append(list(claims))
        return self.answer

    def answered(self) -> None:
        self.marks |= set(self.asked[-1]) - set(self.refused)


class Stage:
    """Starts, with what ran and whether it was marked by then."""

    def __init__(self, claims: Claims, *, ahead: bool = True, threads: int = 0) -> None:
        self.ran: list[tuple[str, bool]] = []
        self.loop, self.claims = Loop(), claims
        slots = Slots(lambda: threads) if threads else None
        self.starts = Starts(self.process, self.loop, claims, slots=slots, ahead=ahead)
        #: What Celery knows of.
        self.requests: dict[str, Request] = {}

    def process(self, request: Request) -> None:
        self.ran.append((request.claim, self.claims.marked(request.claim)))

    def want(self, *claims: str) -> None:
        for claim in claims:
            self.requests[claim] = Request(claim)
            state.reserved_requests.add(self.requests[claim])
            self.starts(self.requests[claim])

    def end(self, claim: str) -> None:
        """In a thread of the pool; the loop hears of it and turns."""
        state.reserved_requests.discard(self.requests.pop(claim))
        self.starts.turn()


def test_marked_start_goes_at_once() -> None:
    stage = Stage(Claims("L.1"))
    stage.want("L.1")
    assert stage.ran == [("L.1", True)]
    assert not stage.loop.calls


def test_start_that_must_be_asked_for_waits_for_the_next_turn_and_keeps_its_order() -> None:
    stage = Stage(Claims("L.3"), ahead=False)
    stage.want("L.1", "L.2", "L.3")
    assert stage.ran == []
    stage.loop.turn()
    assert [claim for claim, _ in stage.ran] == ["L.1", "L.2", "L.3"]
    assert stage.claims.asked == []


def test_starts_of_one_turn_are_asked_for_together_and_nothing_goes_before_the_answer() -> None:
    stage = Stage(Claims())
    stage.want("L.1", "L.2")
    stage.loop.turn()
    assert stage.claims.asked == [["L.1", "L.2"]]
    assert stage.ran == []
    stage.loop.readers[7]()
    assert stage.ran == [("L.1", True), ("L.2", True)]


def test_what_wants_to_start_before_the_answer_goes_with_the_next_question() -> None:
    stage = Stage(Claims())
    stage.want("L.1")
    stage.loop.turn()
    stage.want("L.2", "L.3")
    stage.loop.turn()
    assert stage.claims.asked == [["L.1"]]
    stage.loop.readers[7]()
    assert stage.ran == [("L.1", True)]
    stage.loop.turn()
    assert stage.claims.asked == [["L.1"], ["L.2", "L.3"]]


def test_answer_that_is_overdue_is_read_although_nothing_is_there_to_be_read() -> None:
    """Of a server that hangs, or is cut off, a socket never becomes readable."""
    stage = Stage(Claims(refused=("L.1",)))
    stage.want("L.1")
    stage.loop.turn()
    stage.want("L.2")
    # When it may still come, nobody waits for it
    stage.starts.look(60.0)
    assert stage.ran == []
    # When it is overdue, what it was for is settled, and others have their turn
    stage.starts.look(-1.0)
    assert stage.ran == [("L.1", False)]
    stage.loop.turn()
    assert stage.claims.asked == [["L.1"], ["L.2"]]


def test_answer_over_a_new_connection_is_heard_although_its_descriptor_has_the_old_number() -> None:
    stage = Stage(Claims())
    stage.want("L.1")
    stage.loop.turn()
    stage.loop.readers.pop(7)()  # as a closed descriptor is gone from the loop
    stage.claims.answer = Answer(7)
    stage.want("L.2")
    stage.loop.turn()
    stage.loop.readers[7]()
    assert stage.ran == [("L.1", True), ("L.2", True)]


def test_connection_that_is_closed_while_nothing_is_asked_is_not_listened_to() -> None:
    stage = Stage(Claims())
    stage.want("L.1")
    stage.loop.turn()
    stage.loop.readers[7]()
    stage.loop.readers[7]()
    assert stage.loop.readers == {}


def test_start_that_was_refused_is_no_obstacle_to_the_others() -> None:
    stage = Stage(Claims(refused=("L.1",)))
    stage.want("L.1", "L.2")
    stage.loop.turn()
    stage.loop.readers[7]()
    assert stage.ran == [("L.1", False), ("L.2", True)]


def test_error_in_a_start_keeps_the_others_for_the_next_turn() -> None:
    stage = Stage(Claims())
    stage.want("L.1", "L.2")
    stage.loop.turn()
    process, stage.starts._process = stage.starts._process, lambda _request: 1 / 0
    with pytest.raises(ZeroDivisionError):
        stage.loop.readers[7]()
    stage.starts._process = process
    stage.claims.answer = None
    stage.loop.turn()
    assert stage.ran == [("L.2", True)]


def test_when_the_loop_ends_the_answer_is_known_and_nothing_starts() -> None:
    stage = Stage(Claims())
    stage.want("L.1")
    stage.loop.turn()
    stage.want("L.2")
    assert stage.starts.clear() == 2
    assert stage.claims.marked("L.1")
    assert stage.ran == []


def test_only_what_has_a_thread_is_asked_for() -> None:
    stage = Stage(Claims(), threads=2)
    stage.want("L.1", "L.2", "L.3", "L.4")
    stage.loop.turn()
    assert stage.claims.asked == [["L.1", "L.2"]]
    stage.loop.readers[7]()
    assert [claim for claim, _ in stage.ran] == ["L.1", "L.2"]
    assert not stage.loop.calls, "the loop turns for nothing"
    # When a thread has nothing to do any more
    stage.end("L.2")
    # Then the next is asked for
    assert stage.claims.asked == [["L.1", "L.2"], ["L.3"]]
    stage.loop.readers[7]()
    assert [claim for claim, _ in stage.ran] == ["L.1", "L.2", "L.3"]


@pytest.mark.parametrize("ahead", [True, False])
def test_marked_start_without_a_thread_waits_for_one(ahead: bool) -> None:
    stage = Stage(Claims("L.1", "L.2"), ahead=ahead, threads=1)
    stage.claims.answer = None
    stage.want("L.1", "L.2")
    stage.loop.turn()
    assert [claim for claim, _ in stage.ran] == ["L.1"]
    stage.end("L.1")
    assert [claim for claim, _ in stage.ran] == ["L.1", "L.2"]


def test_what_a_thread_runs_on_with_takes_its_slot_although_celery_has_dropped_what_was_reserved() -> None:
    stage = Stage(Claims("L.1", "L.2"), threads=1)
    stage.want("L.1")
    running = stage.requests["L.1"]
    state.active_requests.add(running)
    state.reserved_requests.clear()
    stage.want("L.2")
    stage.loop.turn()
    assert [claim for claim, _ in stage.ran] == ["L.1"]
    state.active_requests.discard(running)
    stage.claims.answer = None
    stage.starts.turn()
    assert [claim for claim, _ in stage.ran] == ["L.1", "L.2"]
