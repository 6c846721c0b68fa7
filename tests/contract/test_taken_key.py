"""Somebody else's key where a queue should be: what it costs must not be a message (G1).

A queue that is empty has no key, so anybody on the same database may make one of its name. A script that fails
on it halfway undoes nothing of what it did.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from celery_ha.brokers.dead import DeadLetters
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.merge import merge
from celery_ha.brokers.redis import RedisBroker
from celery_ha.model import Ending, Holder, Node, Parked, Settlement
from celery_ha.parking.redis import RedisParking, pour
from celery_ha.store.redis import RedisStore
from tests.support.server import RedisServer

pytestmark = pytest.mark.contract

LEASE = "lease"


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[RedisBroker]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    made = RedisBroker(client, Layout())
    made.join(LEASE)
    yield made
    client.close()


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    made = RedisStore(redis_server.url)
    made.leases.open(Node(LEASE, "w@host", queues=("q",), ttl=10.0))
    yield made
    made.close()


def message(name: str) -> bytes:
    return json.dumps({"body": "", "headers": {"id": name}, "properties": {}}).encode()


def claim(broker: RedisBroker, name: str, queue: str = "q") -> str:
    broker.publish(queue, message(name))
    (found,) = broker.claim(LEASE, [queue], limit=1, slots=1).claims
    return found.id


def waiting(broker: RedisBroker, queue: str = "q") -> list[bytes]:
    return list(reversed(broker.client.lrange(queue, 0, -1)))


@pytest.mark.parametrize("taken", ["r", "q\x06\x163"])
def test_claim_that_comes_upon_it_loses_nothing_of_the_queues_before_it(broker: RedisBroker, taken: str):
    broker.publish("q", message("a"))
    broker.client.set(taken, "somebody else's")

    batch = broker.claim(LEASE, ["q", "r"], limit=5, slots=5)

    assert [found.payload for found in batch.claims] == [message("a")]
    assert list(broker.held(LEASE)) == [found.id for found in batch.claims]


def test_queue_that_cannot_be_read_is_said_when_there_is_nothing_else(broker: RedisBroker):
    broker.client.set("r", "somebody else's")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        broker.claim(LEASE, ["q", "r"], limit=5, slots=5)


def test_message_that_cannot_go_back_stays_in_flight_and_holds_up_no_other(broker: RedisBroker):
    first, other = claim(broker, "a"), claim(broker, "b", "other")
    broker.client.set("q", "somebody else's")

    assert broker.settle(LEASE, [Settlement(first, Ending.RELEASE), Settlement(other, Ending.ACK)])
    assert list(broker.held(LEASE)) == [first]
    broker.client.delete("q")
    broker.settle(LEASE, [Settlement(first, Ending.RELEASE)])
    assert waiting(broker) == [message("a")]


def test_recovery_moves_what_it_can_and_the_rest_when_it_can(broker: RedisBroker):
    claim(broker, "a")
    claim(broker, "b", "other")
    broker.client.set("q", "somebody else's")
    broker.fence(LEASE)

    held = [(found, found.payload) for found in broker.in_flight(LEASE)]
    assert broker.requeue(held) == 1
    assert waiting(broker, "other") == [message("b")]
    assert not broker.forget(LEASE)
    broker.client.delete("q")
    assert broker.requeue([(found, found.payload) for found in broker.in_flight(LEASE)]) == 1
    assert waiting(broker) == [message("a")]
    assert broker.forget(LEASE)


def test_full_server_is_no_such_reason_to_keep_a_message(broker: RedisBroker):
    first = claim(broker, "a")
    broker.client.config_set("maxmemory", 1)
    try:
        broker.settle(LEASE, [Settlement(first, Ending.RELEASE)])
    finally:
        broker.client.config_set("maxmemory", 0)

    assert waiting(broker) == [message("a")]
    assert not broker.held(LEASE)


def test_dead_letter_that_cannot_go_back_stays_dead(broker: RedisBroker):
    broker.settle(LEASE, [Settlement(claim(broker, "a"), Ending.DEAD, "told to")])
    broker.client.set("q", "somebody else's")
    letters = DeadLetters(broker)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        letters.retry(letters)
    assert len(letters) == 1
    assert [letter.claim.payload for letter in letters] == [message("a")]


def test_publish_that_was_refused_is_not_taken_for_a_repetition_the_next_time(broker: RedisBroker):
    """kombu repeats it with the same number: it must not seem to be there (rule 14)."""
    broker.client.set("q", "somebody else's")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        broker.publish("q", message("a"), publish_id="producer.1")
    broker.client.delete("q")

    assert broker.publish("q", message("a"), publish_id="producer.1")
    assert waiting(broker) == [message("a")]
    assert not broker.publish("q", message("a"), publish_id="producer.1")


def test_shard_is_not_emptied_into_a_queue_that_cannot_be_written(broker: RedisBroker):
    broker.publish("q.0", message("a"))
    broker.client.set("q", "somebody else's")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        merge(broker, "q.0", "q", exchange="", routing_key="q")
    assert waiting(broker, "q.0") == [message("a")]


@pytest.mark.parametrize("wakes", ["release", "sweep", "pour"])
def test_parked_message_whose_turn_comes_stays_in_line(broker: RedisBroker, store: RedisStore, wakes: str):
    parking = RedisParking(store, broker.layout)
    holder = Holder(LEASE, claim(broker, "a"), "a")
    token = store.locks.acquire("x", holder, inherit=60.0).token
    assert parking.park("x", Holder(LEASE, claim(broker, "b"), "b"), limit=1, inherit=60.0) is Parked.PARKED
    broker.client.set("q", "somebody else's")

    if wakes == "pour":
        pour(store)
    else:
        assert store.locks.release("x", holder, token)
        store.locks.sweep()
    assert store.locks.waiting("x") == 1
    broker.client.delete("q")
    pour(store) if wakes == "pour" else store.locks.sweep()
    assert waiting(broker) == [message("b")]
    assert store.locks.waiting("x") == 0
