"""Starts asked for without waiting, of the Redis that is the store."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
import redis

from celery_ha.attempts.base import ACK_SENT, Attempt, Question, Started
from celery_ha.attempts.redis import RedisAttempts
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Ending, Node, Settlement
from celery_ha.store.redis import RedisStore
from tests.support.server import RedisServer


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    redis.Redis.from_url(redis_server.url).flushall()
    made = RedisStore(redis_server.url, timeout=0.5)
    made.leases.open(Node("a", "a@host"))
    yield made
    made.close()


@pytest.fixture
def attempts(store: RedisStore) -> RedisAttempts:
    return RedisAttempts(store)


@pytest.fixture
def question(attempts: RedisAttempts) -> Iterator[Question]:
    made = attempts.question()
    yield made
    made.close()


def attempt(number: int, message: str = "") -> Attempt:
    return Attempt(f"a.{number}", message or f"m{number}", "task", "orders.1")


def test_several_starts_and_the_ends_before_them_are_one_question(question, attempts):
    attempts.start("a", attempt(1))
    ended = [(Settlement("a.1", Ending.ACK), ACK_SENT)]
    readable = question.ask("a", [attempt(2), attempt(3), attempt(4, "m1"), attempt(5, "m2")], ended)
    assert select.select([readable], [], [], 5)[0] == [readable]
    # Then one that has ended, and one that runs by the same call, start no more
    assert question.answer() == [Started.YES, Started.YES, Started.NOT_NOW, Started.NOT_NOW]
    assert {found.claim for found in attempts.under("a")} == {"a.2", "a.3"}
    assert attempts.earlier("m1").ended


def test_nothing_starts_or_ends_under_a_lease_that_is_not_open(question, attempts):
    question.ask("b", [attempt(1), attempt(2)], [(Settlement("a.1", Ending.ACK), ACK_SENT)])
    assert question.answer() == [Started.CLOSED, Started.CLOSED]
    assert attempts.under("b") == []


def test_connection_that_was_closed_while_it_rested_costs_no_question(question, store):
    first = question.ask("a", [attempt(1)], ())
    assert question.answer() == [Started.YES]
    question._rests_since = 0.0  # as if it had rested
    with store.pool.link() as link:
        link.call(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    second = question.ask("a", [attempt(2)], ())
    assert second is not first, "whoever waits for the answer must wait for another one"
    assert question.answer() == [Started.YES]


def test_answer_that_is_lost_says_so_and_the_next_question_is_answered(question, store):
    with store.pool.link() as link:
        link.call(("CLIENT", "PAUSE", 30_000, "WRITE"))
        question.ask("a", [attempt(1)], ())
        with pytest.raises(StoreUnavailable):
            question.answer()
        link.call(("CLIENT", "UNPAUSE"))
    question.ask("a", [attempt(1), attempt(2)], ())
    assert question.answer() == [Started.YES, Started.YES], "the first may have been written: it is the same attempt"


def test_server_that_forgot_the_script_is_taught_it_again(question, store):
    with store.pool.link() as link:
        link.call(("SCRIPT", "FLUSH"))
    question.ask("a", [attempt(1)], ())
    assert question.answer() == [Started.YES]
