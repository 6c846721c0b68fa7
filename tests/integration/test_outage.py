"""Locks while the store is away: waiting calls wait, nothing is granted twice, and what ends says why."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from celery_ha.brokers.connect import access_to
from celery_ha.errors import LockBusy, StoreUnavailable
from celery_ha.model import Holder
from tests.support.fleet import eventually
from tests.support.scene import Scene, leave_store, load_probe
from tests.support.server import RedisServer
from tests.support.zookeeper import ZooKeeper

#: Seconds: longer than a lease of 2 s lives, and than any call under it may take.
AWAY = 10.0


@pytest.fixture
def durable(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(params=["redis", "zookeeper"])
def store(request: pytest.FixtureRequest) -> Iterator[RedisServer | ZooKeeper]:
    """A server that forgets nothing when it is restarted."""
    if request.param == "redis":
        yield request.getfixturevalue("durable")
        return
    request.getfixturevalue("zookeeper_server")  # says what to do if there is none on this machine
    server = ZooKeeper()
    server.start()
    yield server
    server.close()


@pytest.fixture
def ha(store: RedisServer | ZooKeeper, redis_server: RedisServer) -> Iterator[object]:
    """A process that is no worker."""
    conf = {"ha_store": store.url}
    probe = load_probe({"PROBE_BROKER": redis_server.url, "PROBE_TTL": "2", "PROBE_CONF": json.dumps(conf)})
    yield probe.app.ha
    probe.app.ha.tenant.close()
    leave_store(probe.app)


def test_a_call_that_waits_outlives_a_restart_of_the_store(ha, store: RedisServer | ZooKeeper):
    # Given one who holds a lock and one who waits for it
    got: list[int] = []

    def wait() -> None:
        with ha.lock("x") as lock:
            got.append(lock.token)

    waiting = threading.Thread(target=wait)
    with ha.lock("x") as held:
        first = held.token
        waiting.start()
        eventually(lambda: ha.locks.waiting("x") == 1)
        # When the store is away for longer than any call to it may take
        store.stop()
        time.sleep(AWAY)
        store.start()
        assert got == []
        held.check()
    # Then it gets the lock after its holder
    waiting.join(60)
    assert got
    assert got[0] > first
    assert ha.locks.waiting("x") == 0


def test_a_new_call_waits_for_a_store_that_is_away(ha, store: RedisServer | ZooKeeper):
    store.stop()
    started = threading.Event()
    got: list[int] = []

    def take() -> None:
        started.set()
        with ha.lock("x") as lock:
            got.append(lock.token)

    calling = threading.Thread(target=take)
    calling.start()
    started.wait()
    time.sleep(AWAY)
    store.start()
    calling.join(60)
    assert got


def test_a_store_that_stays_away_is_named_with_the_lock(ha, store: RedisServer | ZooKeeper):
    with ha.lock("before"):
        pass
    store.stop()
    try:
        with (
            pytest.raises(
                StoreUnavailable,
                match=f"'important'.*{store.port}",
            ),
            ha.lock("important", timeout=0.3),
        ):
            pass
    finally:
        store.start()


def test_nothing_is_granted_twice_while_the_store_stalls(make_scene: Callable[..., Scene], durable: RedisServer):
    # Given tasks that contend for a lock, and a script that holds it now and then
    scene = make_scene(durable, ttl=2.0)
    scene.top_up(2)
    keys = scene.publish("charge", scene.names("k", 12), "account", 0.2)
    scene.wait_started(keys, 2)
    # When the store answers nobody for longer than the TTL
    durable.send(signal.SIGSTOP)
    time.sleep(10.0)
    durable.send(signal.SIGCONT)
    # Then all of them run, one at a time
    scene.wait_ended(keys)
    scene.wait_idle()
    assert scene.ledger.overlaps() == []


def test_a_lock_is_free_again_after_a_call_whose_answer_was_lost(ha, store: RedisServer | ZooKeeper):
    with ha.lock("warm"):
        pass
    store.send(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable), ha.lock("x", timeout=0):
            pass
    finally:
        store.send(signal.SIGCONT)

    def free() -> bool:
        try:
            with ha.lock("x", timeout=0):
                return True
        except LockBusy:
            return False

    eventually(free)


def test_a_released_lock_that_a_store_has_again_is_freed_by_whom_it_says_to_hold_it(ha, store: RedisServer | ZooKeeper):
    # Given a process that holds a lock, and a store that has it hold another, whose release it lost
    with ha.lock("held") as held:
        lease = held.holder.lease
        lost = Holder(lease, f"{lease}.4711", "")
        assert ha.tenant.attempt(0).locks.acquire("x", lost, inherit=0).token is not None
        # When the store is back
        store.stop()
        store.start()
        # Then that one is free, and the other is not
        eventually(lambda: f"{lease}.4711" not in _claims(ha, lease))
        held.check()


def _claims(ha, lease: str) -> frozenset[str]:
    try:
        return ha.tenant.attempt(0).locks.claims(lease)
    except StoreUnavailable:
        return frozenset({f"{lease}.4711"})


def test_a_worker_frees_a_lock_of_an_attempt_that_is_over_once_its_broker_is_back(
    make_scene: Callable[..., Scene], durable: RedisServer
):
    # Given a worker in the middle of a locked task, whose lease has another lock that nobody knows of
    scene = make_scene(durable, ttl=2.0)
    (worker,) = scene.top_up(1)
    keys = scene.publish("charge", scene.names("k", 1), "account", 6.0)
    scene.wait_started(keys)
    lease = scene.node(worker).lease
    locks = scene.probe.app.ha.locks
    assert locks.acquire("x", Holder(lease, f"{lease}.4711", "gone"), inherit=60).token is not None
    # When it reconnects
    durable.stop()
    durable.start()
    # Then that one is free, and its own is not
    eventually(lambda: scene.redis.hlen("_ha:lock:0:x") == 0)
    assert scene.ledger.missing(keys) == set(keys), "it still runs"
    assert len(scene.redis.smembers(f"_ha:claims:{lease}")) == 1
    scene.settled(keys)


@pytest.fixture
def producer(redis_server: RedisServer) -> Iterator[Any]:
    """The app of a process that only publishes, with the default broker's store."""
    probe = load_probe({"PROBE_BROKER": redis_server.url})
    redis.Redis.from_url(redis_server.url).flushall()
    yield probe.app
    probe.app.close()


def test_first_question_about_a_claim_in_doubt_is_answered(producer: Any):
    # Given a process that has used neither store nor broker, as a pool child has when the server is away
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(producer.ha.confirm("lease", "lease.1")), daemon=True)
    # When it asks whether a claim is still its own
    asking.start()
    # Then it is told
    eventually(lambda: answers, within=30, why="an answer")
    assert answers == [False]


def test_broker_that_goes_away_again_while_a_worker_starts_is_waited_for(producer: Any):
    access, tries = access_to(producer), []

    def make() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OperationalError("gone again")
        return 7

    assert access.once_there(make) == 7
    # Unless the user does not want to wait
    producer.conf.broker_connection_retry_on_startup = False
    tries.clear()
    with pytest.raises(OperationalError):
        access.once_there(make)


def test_producer_whose_channel_was_closed_under_it_publishes_on_another(producer: Any):
    with producer.producer_pool.acquire(block=True) as one:
        # Given a producer that has published, and whose connection was collected after an error
        producer.send_task("any", producer=one, queue="celery")
        one.channel.close()
        # When it publishes again, to a queue that needs no declaring
        one.publish({}, routing_key="celery", retry=True)
    # Then both messages are there
    with producer.connection_for_read() as connection:
        assert connection.default_channel.client.llen("celery") == 2
