"""What every record of attempts promises (rule 17)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from celery_ha.attempts.base import ACK_OWED, Attempt, Attempts, Earlier, Started
from celery_ha.attempts.choose import attempts_in
from celery_ha.attempts.memory import AttemptsServer, MemoryAttempts
from celery_ha.model import Ending, Settlement
from celery_ha.store.memory import MemoryStore
from celery_ha.testing.member import Member

FRESH = Earlier()


@pytest.fixture
def record() -> Callable[[Member], Attempts]:
    shared = AttemptsServer()

    def make(member: Member) -> Attempts:
        store = member.store
        return MemoryAttempts(store, shared) if isinstance(store, MemoryStore) else attempts_in(store)

    return make


def attempt(claim: str, message: str = "m", *, once: bool = True) -> Attempt:
    return Attempt(claim, message, "task", "orders.1", once=once)


def end(claim: str, ending: Ending = Ending.ACK, payload: bytes | None = None) -> list[tuple[Settlement, float]]:
    return [(Settlement(claim, ending, payload=payload), ACK_OWED)]


def test_an_attempt_that_runs_keeps_every_other_from_starting(member, record):
    a, b = member("a"), member("b")

    assert record(a).start("a", attempt("a.1")) is Started.YES

    assert record(b).earlier("m") == Earlier(lease="a")
    assert record(b).start("b", attempt("b.1")) is Started.NOT_NOW
    assert record(a).start("a", attempt("a.2")) is Started.NOT_NOW, "not even one of the same lease"


def test_the_same_attempt_may_ask_twice(member, record):
    a = member("a")

    assert record(a).start("a", attempt("a.1")) is Started.YES
    assert record(a).start("a", attempt("a.1")) is Started.YES

    assert record(a).under("a") == [attempt("a.1")]


def test_nothing_starts_under_a_lease_that_is_not_open(member, record):
    a, stranger = member("a"), member("stranger", open_it=False)

    assert record(stranger).start("stranger", attempt("stranger.1")) is Started.CLOSED
    assert record(stranger).settle("stranger", end("stranger.1")) is False

    assert record(a).earlier("m") == FRESH


def test_a_message_that_has_ended_does_not_run_again(member, record):
    a, b = member("a"), member("b")
    record(a).start("a", attempt("a.1"))

    assert record(a).settle("a", end("a.1"))

    assert record(b).earlier("m") == Earlier(ended=True)
    assert record(b).start("b", attempt("b.1")) is Started.NOT_NOW
    assert record(a).under("a") == []


def test_a_first_delivery_under_an_id_that_others_may_have_runs_after_their_end(member, record):
    a = member("a")
    record(a).start("a", attempt("a.1"))
    record(a).settle("a", end("a.1"))

    assert record(a).start("a", attempt("a.2", once=False)) is Started.YES


def test_an_attempt_under_a_fenced_lease_is_over_and_counts(member, record):
    a, b = member("a"), member("b")
    record(a).start("a", attempt("a.1"))

    assert b.fence(a)

    assert record(b).earlier("m") == Earlier(1)
    assert record(b).start("b", attempt("b.1")) is Started.YES
    # And whoever recovers the lease later changes nothing about it
    assert [found.claim for found in record(b).under("a")] == ["a.1"]
    record(b).interrupted("a", ["a.1"])
    assert record(b).earlier("m") == Earlier(1, lease="b")
    assert record(b).forget("a")


def test_the_attempts_of_a_fenced_lease_are_noted_once(member, record):
    a, b = member("a"), member("b")
    record(a).start("a", attempt("a.1"))
    b.fence(a)

    assert record(b).interrupted("a", ["a.1"]) == 1
    assert record(b).interrupted("a", ["a.1"]) == 0

    assert record(b).earlier("m") == Earlier(1)


def test_the_attempts_of_an_open_lease_are_not_interrupted(member, record):
    a, b = member("a"), member("b")
    record(a).start("a", attempt("a.1"))

    assert record(b).interrupted("a", ["a.1"]) == 0

    assert record(b).earlier("m") == Earlier(lease="a")


def test_late_end_of_a_fenced_lease_changes_nothing(member, record):
    a, b = member("a"), member("b")
    record(a).start("a", attempt("a.1"))
    b.fence(a)
    record(b).start("b", attempt("b.1"))

    assert record(a).settle("a", end("a.1")) is False

    assert record(b).earlier("m") == Earlier(1, lease="b")
    assert record(b).holds("b", "b.1")
    assert not record(a).holds("a", "a.1")


@pytest.mark.parametrize(("payload", "count"), [(b"", 1), (None, 0)])
def test_what_goes_back_counts_if_it_had_started(member, record, payload, count):
    a = member("a")
    record(a).start("a", attempt("a.1"))

    record(a).settle("a", end("a.1", Ending.RELEASE, payload))

    assert record(a).earlier("m") == Earlier(count, harmless=True)
    assert record(a).start("a", attempt("a.2")) is Started.YES
    assert record(a).earlier("m") == Earlier(count, lease="a")
    record(a).settle("a", end("a.2", Ending.DEFER))
    assert record(a).earlier("m") == Earlier(count, harmless=True), "put off, it counts no more than before"


def test_who_gave_a_message_back_alive_is_forgotten_when_the_next_dies_of_it(member, record):
    a, b = member("a"), member("b")
    record(b).start("b", attempt("b.1"))
    record(b).settle("b", end("b.1", Ending.RELEASE))
    record(a).start("a", attempt("a.1"))

    assert b.fence(a)

    assert record(b).earlier("m") == Earlier(1)


def test_an_end_travels_with_the_next_start(member, record):
    a = member("a")
    record(a).start("a", attempt("a.1"))

    assert record(a).start("a", attempt("a.2", "n"), end("a.1")) is Started.YES

    assert [found.claim for found in record(a).under("a")] == ["a.2"]
    assert record(a).earlier("m") == Earlier(ended=True)


def test_ending_what_is_not_running_changes_nothing(member, record):
    a = member("a")
    record(a).start("a", attempt("a.1"))
    record(a).settle("a", end("a.1"))

    assert record(a).settle("a", end("a.1"))
    assert record(a).settle("a", end("a.9", Ending.RELEASE))

    assert record(a).earlier("m") == Earlier(ended=True)
    assert record(a).forget("a")
