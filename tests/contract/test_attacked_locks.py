"""Histories that once left a lock with two holders, or somebody waiting beside a free one; on a real Redis."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from celery_ha.errors import StoreUnavailable
from celery_ha.model import Holder, Node
from celery_ha.store.redis import RedisStore
from tests.support.fleet import eventually
from tests.support.server import RedisServer


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


def test_grant_out_of_a_line_is_not_given_before_a_replica_has_it(start_redis: Callable[..., RedisServer]):
    """It was written by the connection of whoever released the lock; WAIT asks about those of its own."""
    master = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    admin = redis.Redis.from_url(master.url)
    eventually(lambda: admin.info("replication").get("slave0", {}).get("state") == "online", why="a replica")
    holds, waits = (RedisStore(master.url, replicas=1, timeout=10.0) for _ in range(2))
    for store, lease in ((holds, "a"), (waits, "b")):
        store.leases.open(Node(lease, f"{lease}@host"))
    first = holds.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waits.locks.acquire, "x", Holder("b", "b.1", "u"), inherit=1, wait=4.0)
        eventually(lambda: holds.locks.waiting("x") == 1)
        admin.set("all", "known")
        assert admin.wait(1, 10_000) == 1
        # When the lock is released while the replica hears nothing
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            holds.locks.release("x", Holder("a", "a.1", "t"), first.token)
            # Then who waited is not told that it has it
            with pytest.raises(StoreUnavailable, match="0 of 1"):
                waiting.result(60)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
    for store in (holds, waits):
        store.close()


def test_server_clock_that_went_back_by_an_hour_grants_locks_again_after_a_ttl(redis_server, admin):
    store = RedisStore(redis_server.url)
    store.leases.open(Node("a", "a@host", ttl=0.5))
    # Given a quiet time that began an hour ahead of the clock, as it is now
    admin.hset("_ha:run", "since", int((time.time() + 3600) * 1_000_000))
    assert store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1).token is None
    # Then a lock is granted when that has lasted
    eventually(lambda: store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1).token, within=10.0)
    store.close()


def test_caller_in_line_outlives_the_last_worker(redis_server, admin):
    """What waits for a lock goes back to its queues then; a caller of another process waits on."""
    worker, holds, waits = (RedisStore(redis_server.url) for _ in range(3))
    worker.leases.open(Node("w", "w@host", 1, ("celery",)))
    for store, lease in ((holds, "a"), (waits, "b")):
        store.leases.open(Node(lease, f"{lease}@host", 0))
    first = holds.locks.acquire("x", Holder("a", "a.1", ""), inherit=0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waits.locks.acquire, "x", Holder("b", "b.1", ""), inherit=0, wait=20.0)
        eventually(lambda: holds.locks.waiting("x") == 1)
        # When the only worker says goodbye, and the lock is released after that
        assert worker.leases.close("w", clean=True)
        eventually(lambda: holds.locks.waiting("x") == 1, why="it stands in line again")
        assert holds.locks.release("x", Holder("a", "a.1", ""), first.token)
        # Then it gets it
        assert waiting.result(30).token > first.token
    for store in (worker, holds, waits):
        store.close()
