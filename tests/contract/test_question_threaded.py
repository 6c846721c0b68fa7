"""Starts asked for without waiting, of a ZooKeeper that is the store."""

from __future__ import annotations

import select
from collections.abc import Iterator
from uuid import uuid4

import pytest

from celery_ha.attempts.base import ACK_SENT, Attempt, Question, Started
from celery_ha.attempts.threaded import ThreadedQuestion
from celery_ha.attempts.zookeeper import ZooKeeperAttempts
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Ending, Node, Settlement, Verdict
from celery_ha.store.choose import store_from_url
from celery_ha.store.zookeeper.store import ZooKeeperStore
from tests.support.zookeeper import ZooKeeper


@pytest.fixture
def store(zookeeper_server: ZooKeeper) -> Iterator[ZooKeeperStore]:
    url = f"zookeeper://{zookeeper_server.host}/{uuid4().hex}"
    made = store_from_url(url, prefix="_ha:", timeout=2.0, ttl=4.0)
    assert isinstance(made, ZooKeeperStore)
    made.leases.open(Node("a", "a@host"))
    yield made
    made.close()


@pytest.fixture
def attempts(store: ZooKeeperStore) -> ZooKeeperAttempts:
    return ZooKeeperAttempts(store)


@pytest.fixture
def question(attempts: ZooKeeperAttempts) -> Iterator[Question]:
    made = attempts.question()
    yield made
    made.close()


def attempt(number: int, message: str = "") -> Attempt:
    return Attempt(f"a.{number}", message or f"m{number}", "task", "orders.1")


def test_several_starts_and_the_ends_before_them_are_one_question(question, attempts):
    attempts.start("a", attempt(1))
    ended = [(Settlement("a.1", Ending.ACK), ACK_SENT)]
    readable = question.ask("a", [attempt(2), attempt(3), attempt(4, "m2")], ended)
    assert select.select([readable], [], [], 5)[0] == [readable]
    assert question.answer() == [Started.YES, Started.YES, Started.NOT_NOW]
    assert {found.claim for found in attempts.under("a")} == {"a.2", "a.3"}
    assert select.select([readable], [], [], 0)[0] == [], "an answer that was read wakes nobody"


def test_nothing_starts_or_ends_under_a_lease_that_is_not_open(question, attempts):
    question.ask("b", [attempt(1), attempt(2)], [(Settlement("a.1", Ending.ACK), ACK_SENT)])
    assert question.answer() == [Started.CLOSED, Started.CLOSED]
    assert attempts.under("b") == []


def test_answer_that_is_lost_wakes_who_waits_and_the_next_question_is_answered():
    answers = iter([StoreUnavailable("gone"), Started.YES])

    def start(*_: object) -> Started:
        answer = next(answers)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    question = ThreadedQuestion(start)
    readable = question.ask("a", [attempt(1), attempt(2)], ())
    assert select.select([readable], [], [], 5)[0] == [readable]
    with pytest.raises(StoreUnavailable):
        question.answer()
    question.close()
    assert readable.fileno() < 0, "whoever waits for the answer must wait for another one"
    question.ask("a", [attempt(1)], ())
    assert question.answer() == [Started.YES]
    question.close()


def test_end_that_was_written_by_another_hand_is_read_again_and_takes_nothing_from_the_next(store, attempts):
    store.leases.open(Node("b", "b@host"))
    assert attempts.start("a", attempt(1)) is Started.YES
    other = ZooKeeperAttempts(store)
    assert other.settle("a", [(Settlement("a.1", Ending.RELEASE), ACK_SENT)])
    assert other.start("b", Attempt("b.1", "m1", "task", "orders.1")) is Started.YES
    # What was written under the first lease is known here, and no longer true
    assert attempts.settle("a", [(Settlement("a.1", Ending.ACK), ACK_SENT)])
    assert [found.claim for found in other.under("b")] == ["b.1"]
    assert other.earlier("m1").running


def test_end_under_a_lease_that_was_given_up_changes_nothing(store, attempts):
    assert attempts.start("a", attempt(1)) is Started.YES
    look = store.court.look()
    term = store.court.elect("a")
    assert store.court.fence(term, "a", Verdict("a", "told to", look.counters["a"], look.nodes["a"].connections))
    assert not attempts.settle("a", [(Settlement("a.1", Ending.ACK), ACK_SENT)])
    assert [found.claim for found in attempts.under("a")] == ["a.1"]
