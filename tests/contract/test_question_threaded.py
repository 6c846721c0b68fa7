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
from celery_ha.model import Ending, Node, Settlement
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
