"""What waits on RabbitMQ, counted over a connection that may lose its server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from celery import Celery
from kombu import Connection

from celery_ha.brokers.backlog import RabbitBacklog
from tests.support.rabbit import Rabbit


@pytest.fixture
def url(rabbit: Rabbit) -> str:
    return rabbit.url()


@pytest.fixture
def backlog(url: str) -> Iterator[RabbitBacklog]:
    made = RabbitBacklog(Celery("shop", broker=url, set_as_current=False), 1.0)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _one_and_two(url: str) -> Iterator[None]:
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        for queue, count in (("one", 1), ("two", 2)):
            connection.channel().queue_declare(queue, durable=True, auto_delete=False)
            for _ in range(count):
                connection.Producer().publish("x", routing_key=queue)
        yield


def test_queue_that_is_not_there_has_none(backlog: RabbitBacklog):
    assert backlog.waiting(["one", "missing", "two"]) == {"one": 1, "missing": 0, "two": 2}


def test_late_answer_is_not_taken_for_the_answer_to_the_next_question(backlog: RabbitBacklog, rabbit: Rabbit):
    assert backlog.waiting(["one"]) == {"one": 1}
    assert rabbit._process is not None
    os.killpg(rabbit._process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(backlog.errors):
            backlog.waiting(["one"])
    finally:
        os.killpg(rabbit._process.pid, signal.SIGCONT)
    assert backlog.waiting(["two"]) == {"two": 2}
