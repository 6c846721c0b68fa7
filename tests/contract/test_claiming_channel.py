"""A claiming channel on a real server, turned by hand; commands may be held up on their way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from celery_ha.brokers.connection import Connection
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.redis import RedisBroker
from celery_ha.brokers.transport import LATE
from tests.support.fleet import eventually
from tests.support.server import RedisServer

pytestmark = pytest.mark.contract

LEASE = "lease"


class Intake:
    """As much of a node as a channel needs."""

    lease = LEASE
    batch_limit = 10

    def __init__(self, broker: RedisBroker) -> None:
        self.broker = broker
        self.ledger = Ledger(LEASE)
        self.reception = SimpleNamespace(serve=lambda _queues: None)
        self.claims = SimpleNamespace(max_deliveries=3, asking=False)

    def free_slots(self) -> int:
        return 2

    def check(self) -> None: ...

    def refused(self) -> None: ...

    def settle(self, owed: Any) -> bool:
        return self.broker.settle(LEASE, owed)

    def stock_due(self, now: float) -> bool:
        return False

    def between_claims(self) -> None: ...


@pytest.fixture
def intake(redis_server: RedisServer) -> Iterator[Intake]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    broker = RedisBroker(client, Layout())
    broker.join(LEASE)
    yield Intake(broker)
    client.close()


@pytest.fixture
def channel(redis_server: RedisServer, intake: Intake) -> Iterator[Any]:
    with Connection(redis_server.url) as connection:
        connection.intake = intake
        made = connection.channel()
        made.qos.prefetch_count = 10
        made.basic_consume("q", False, lambda _message: None, "tag")
        made.client.connection = made.client.connection_pool.get_connection()  # kombu's poller does that
        turn(made)  # the server learns the script
        yield made


def ask(channel: Any) -> None:
    """Ask for messages, and for no bell."""
    channel._scan_at = 0.0
    channel._brpop_start()


def turn(channel: Any) -> None:
    ask(channel)
    with suppress(Empty):
        channel._brpop_read()


def held_up(channel: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep what the channel sends from now on; returns what lets it arrive."""
    connection = channel.client.connection
    kept: list[tuple[Any, ...]] = []
    monkeypatch.setattr(connection, "send_packed_command", lambda *command, **_options: kept.append(command))

    def arrive() -> None:
        monkeypatch.undo()
        for command in kept:
            connection.send_packed_command(*command)

    return arrive


def publish(intake: Intake, name: str) -> None:
    headers = {"id": name, "task": "t", "eta": None}
    properties = {"delivery_info": {"exchange": "", "routing_key": "q"}, "delivery_tag": name}
    message = {"body": "", "headers": headers, "properties": properties, "content-type": "application/json"}
    intake.broker.publish("q", json.dumps(message).encode())


def test_claim_that_arrives_late_does_not_unmark_an_attempt_that_runs_by_then(
    channel: Any, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a message with the mark of its claim, which has to wait for a rate limit after all
    publish(intake, "limited")
    turn(channel)
    ((claim, started),) = intake.broker.held(LEASE).items()
    assert started
    intake.ledger.defer(claim)
    # And the next claim, on its way for a while
    arrive = held_up(channel, monkeypatch)
    ask(channel)
    channel.pay()
    # When the attempt asks to start, over another connection, and runs
    owed = intake.ledger.owed()
    assert intake.broker.start(LEASE, claim, settle=owed)
    intake.ledger.confirmed(owed)
    intake.ledger.run(claim)
    # Then whoever recovers it knows that it ran, although the claim arrives now: it counts, and keeps its lock
    arrive()
    with suppress(Empty):
        channel._brpop_read()
    assert intake.broker.held(LEASE) == {claim: True}


def test_mark_that_comes_late_does_not_count(channel: Any, intake: Intake) -> None:
    """A node that froze with its answer on the way may have been fenced since, if it lost its connections too."""
    # Given a message that was claimed with its mark, and then moved on
    publish(intake, "waiting")
    ask(channel)
    eventually(lambda: intake.broker.held(LEASE), within=5, why="claimed")
    intake.broker.fence(LEASE)
    # When the answer is read long after the question
    channel._brpop_sent_at -= LATE
    channel._brpop_read()
    # Then its start is asked for, and refused
    (claim,) = intake.ledger.held()
    assert not intake.ledger.started(claim)
    assert not intake.broker.start(LEASE, claim)


def test_mark_that_comes_at_once_costs_no_question(channel: Any, intake: Intake) -> None:
    publish(intake, "waiting")
    turn(channel)

    (claim,) = intake.ledger.held()
    assert intake.ledger.started(claim)
