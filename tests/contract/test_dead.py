"""Dead letters on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from celery_ha.brokers.census import Census
from celery_ha.brokers.dead import CHUNK, DeadLetters
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.redis import RedisBroker
from celery_ha.model import Ending, Settlement
from tests.support.server import RedisServer

LEASE = "lease"


@pytest.fixture(params=["", "tenant:"])
def broker(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisBroker]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    made = RedisBroker(client, Layout(prefix=request.param))
    made.join(LEASE)
    yield made
    client.close()


def message(at: int = 0, **headers: object) -> bytes:
    return json.dumps({"body": "", "headers": {"id": f"task{at}", "task": "t", **headers}, "properties": {}}).encode()


def bury(broker: RedisBroker, payload: bytes, queue: str = "q", priority: int = 0) -> str:
    broker.publish(queue, payload, priority=priority)
    (claim,) = broker.claim(LEASE, [queue], limit=1, slots=1).claims
    broker.settle(LEASE, [Settlement(claim.id, Ending.DEAD, "told to")])
    return claim.id


def test_retry_puts_it_at_the_end_of_its_own_list_with_no_attempt_counted(broker: RedisBroker):
    # Given a letter that three attempts were counted for, and a message that waits
    dead = DeadLetters(broker)
    letter = dead.find(bury(broker, message(1, ha_deliveries=3, other=[]), priority=6))
    assert letter is not None
    assert (letter.reason, letter.queue) == ("told to", "q")
    broker.publish("q", message(2), priority=6)
    broker.client.delete(broker.layout.bell("q"))
    # When it is retried
    assert dead.retry([letter]) == 1
    # Then it comes after the other, and whoever sleeps on the queue is woken
    assert Census(broker).waiting(["q"]) == {"q": 2}
    assert broker.client.zcard(broker.layout.bell("q")) == 1
    claims = broker.claim(LEASE, ["q"], limit=5, slots=0).claims
    assert [json.loads(claim.payload) for claim in claims] == [
        json.loads(message(at, **more)) for at, more in [(2, {}), (1, {"other": []})]
    ]
    # And only once
    assert dead.retry([letter]) == 0
    assert Census(broker).waiting(["q"]) == {"q": 0}
    assert len(dead) == 0


def test_what_is_no_message_of_ours_goes_back_byte_for_byte(broker: RedisBroker):
    dead = DeadLetters(broker)
    bury(broker, b"\xff not JSON")
    assert dead.retry(dead) == 1
    assert broker.claim(LEASE, ["q"], limit=1, slots=0).claims[0].payload == b"\xff not JSON"


def test_more_than_one_script_moves_keep_their_order(broker: RedisBroker):
    dead = DeadLetters(broker)
    count = CHUNK + 2
    for at in range(count):
        bury(broker, message(at))
    assert len(dead) == count
    assert dead.newest(1)[0].claim.payload == message(count - 1)
    assert dead.find("task0") is not None
    assert dead.retry([*dead][::-1]) == count
    claims = broker.claim(LEASE, ["q"], limit=count, slots=0).claims
    assert [claim.payload for claim in claims] == [message(at) for at in range(count)]


def test_drop_leaves_nothing(broker: RedisBroker):
    dead = DeadLetters(broker)
    first, second = bury(broker, message(1)), bury(broker, message(2))
    one = dead.find(first)
    assert one is not None
    assert (dead.drop([one]), dead.drop([one])) == (1, 0)
    assert [letter.claim.id for letter in dead] == [second]
    assert dead.drop(dead) == 1
    assert not broker.client.keys(f"{broker.layout.dead}*")


def test_what_is_older_than_it_may_be_is_deleted_and_nothing_else(broker: RedisBroker):
    # Given more old letters than one script deletes, and a new one
    dead = DeadLetters(broker)
    old = [bury(broker, message(at)) for at in range(CHUNK + 1)]
    broker.client.zadd(f"{broker.layout.dead}:index", dict.fromkeys(old, broker.client.time()[0] - 100))
    young = bury(broker, message(9_999))
    # When those of more than a minute are to go
    assert dead.expire(60) == CHUNK + 1
    # Then the new one is left, whole
    assert [letter.claim.id for letter in dead] == [young]
    assert broker.client.hlen(broker.layout.dead) == broker.client.hlen(f"{broker.layout.dead}:why") == 1
    assert dead.expire(60) == 0


def test_an_unknown_letter_is_none(broker: RedisBroker):
    assert DeadLetters(broker).find("nobody") is None


def test_in_flight_and_the_widest_count(broker: RedisBroker):
    broker.publish("q", message())
    broker.claim(LEASE, ["q"], limit=1, slots=1)
    broker.widest("q", 4)
    broker.widest("q", 2)
    census = Census(broker)
    assert census.in_flight([LEASE, "other"]) == {LEASE: 1, "other": 0}
    assert census.widest() == {"q": 4}
    assert census.facts()["maxmemory_policy"] == "noeviction"
    assert census.facts()["save"] == ""
