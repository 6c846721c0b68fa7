"""Locks while the store is away: waiting calls wait, nothing is granted twice, and what ends says why."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from celery_ha.errors import LockBusy, StoreUnavailable
from tests.support.fleet import eventually
from tests.support.scene import Scene, load_probe
from tests.support.server import RedisServer


@pytest.fixture
def durable(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def ha(durable: RedisServer) -> Iterator[object]:
    """A process that is no worker."""
    probe = load_probe({"PROBE_BROKER": durable.url, "PROBE_TTL": "2"})
    yield probe.app.ha
    probe.app.ha.tenant.close()


def test_a_call_that_waits_outlives_a_restart_of_the_store(ha, durable: RedisServer):
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
        # When the store is away for a while
        durable.stop()
        durable.start()
        assert got == []
        held.check()
    # Then it gets the lock after its holder
    waiting.join(60)
    assert got
    assert got[0] > first
    assert ha.locks.waiting("x") == 0


def test_a_new_call_waits_for_a_store_that_is_away(ha, durable: RedisServer):
    durable.stop()
    started = threading.Event()
    got: list[int] = []

    def take() -> None:
        started.set()
        with ha.lock("x") as lock:
            got.append(lock.token)

    calling = threading.Thread(target=take)
    calling.start()
    started.wait()
    durable.start()
    calling.join(60)
    assert got


def test_a_store_that_stays_away_is_named_with_the_lock(ha, durable: RedisServer):
    with ha.lock("before"):
        pass
    durable.stop()
    try:
        with (
            pytest.raises(
                StoreUnavailable,
                match=f"'important'.*{durable.url.partition('@')[2] or durable.url.rpartition('//')[2]}",
            ),
            ha.lock("important", timeout=0.3),
        ):
            pass
    finally:
        durable.start()


def test_nothing_is_granted_twice_while_the_store_stalls(make_scene: Callable[..., Scene], durable: RedisServer):
    # Given tasks that contend for a lock, and a script that holds it now and then
    scene = make_scene(durable, ttl=2.0)
    scene.top_up(2)
    keys = scene.publish("charge", scene.names("k", 12), "account", 0.2)
    scene.wait_started(keys, 2)
    # When the store answers nobody for longer than the TTL
    durable.send(signal.SIGSTOP)
    time.sleep(3.0)
    durable.send(signal.SIGCONT)
    # Then all of them run, one at a time
    scene.wait_ended(keys)
    scene.wait_idle()
    assert scene.ledger.overlaps() == []


def test_a_lock_is_free_again_after_a_call_whose_answer_was_lost(ha, durable: RedisServer):
    admin = redis.Redis.from_url(durable.url)
    with ha.lock("warm"):
        pass
    durable.send(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable), ha.lock("x", timeout=0):
            pass
    finally:
        durable.send(signal.SIGCONT)

    def free() -> bool:
        try:
            with ha.lock("x", timeout=0):
                return True
        except LockBusy:
            return False

    eventually(free)
    assert not admin.exists("_ha:lock:0:x")
