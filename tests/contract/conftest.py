"""One suite, three stores: what a test may do to each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.store.redis import OWNED_BY_A_LEASE, PERMANENT, RedisStore
from celery_ha.store.zookeeper import ZooKeeperStore
from celery_ha.store.zookeeper.link import Link
from celery_ha.store.zookeeper.records import load_lock
from celery_ha.store.zookeeper.znodes import Entry, lock_key
from celery_ha.testing import Backend, member

__all__ = ["backend", "member"]

PREFIX = "_ha:"


class MemoryBackend:
    def __init__(self) -> None:
        self.clock = 1000.0
        self.server = MemoryServer(lambda: self.clock)

    def client(self) -> MemoryStore:
        return MemoryStore(self.server)

    def wipe(self) -> None:
        self.server.wipe()

    def kill_connections(self, client: MemoryStore) -> None:
        client.disconnect()

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds

    def check_leaks(self) -> None:
        memory = self.server.memory
        for name, lock in memory.locks.items():
            owner = lock.holder.lease
            assert lock.until is not None or owner in memory.counters or owner in memory.fenced, name


class RedisBackend:
    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = redis.Redis.from_url(url)
        self.admin.flushall()
        self.clients: list[RedisStore] = []

    def client(self) -> RedisStore:
        client = RedisStore(self.url)
        self.clients.append(client)
        return client

    def wipe(self) -> None:
        self.admin.flushall()

    def kill_connections(self, client: RedisStore) -> None:
        for link in (client._a, client._b):
            self.admin.client_kill_filter(_id=link.id)

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.admin.close()

    def check_leaks(self) -> None:
        leases = {*self.admin.hkeys(PREFIX + "leases"), *self.admin.hkeys(PREFIX + "fenced")}
        owners = [lease.decode() for lease in leases]
        for raw in self.admin.scan_iter(PREFIX + "*"):
            key = raw.decode()[len(PREFIX) :]
            if self.admin.ttl(raw) >= 0 or key in PERMANENT:
                continue
            assert key.startswith(OWNED_BY_A_LEASE), f"{key} has no TTL, is not permanent and belongs to no lease"
            if key.startswith("lock:"):
                owner = self.admin.hget(raw, "lease").decode()
            elif key.startswith("try:"):
                owner = self.admin.get(raw).decode().split(" ")[2]
            else:
                owner = key.partition(":")[2].rpartition(".")[0] or key.partition(":")[2]
            assert owner in owners, f"{key} outlived its lease"


class ZooKeeperBackend:
    def __init__(self, url: str) -> None:
        from kazoo.client import KazooClient

        self.url = url
        self.admin = KazooClient(url.partition("://")[2].partition("/")[0])
        self.admin.start()
        self.root = "/" + url.rpartition("/")[2]
        self.clients: list[ZooKeeperStore] = []
        self.wipe()

    def client(self) -> ZooKeeperStore:
        client = ZooKeeperStore(self.url)
        self.clients.append(client)
        return client

    def wipe(self) -> None:
        self.admin.delete(self.root, recursive=True)

    def kill_connections(self, client: ZooKeeperStore) -> None:
        for link in (client._a, client._b):
            expire(link, self.url)

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.admin.stop()
        self.admin.close()

    def check_leaks(self) -> None:
        """Every slot of a lock is in the index of its lease, and nothing is in an index that no lock has."""
        root = f"{self.root}/{PREFIX}"
        owners = {*self._names(root + "/leases"), *self._names(root + "/fenced")}
        indexed = {
            (lease, entry) for lease in self._names(root + "/held") for entry in self._names(f"{root}/held/{lease}")
        }
        held, due = set(), set()
        for key in self._names(root + "/locks"):
            data, stat = self.admin.get(f"{root}/locks/{key}")
            lock = load_lock(data, stat.mzxid, stat.mtime)
            assert lock.slots or len(self._names(f"{root}/locks/{key}")) > 1, f"{key} is nobody's"
            for slot, one in lock.slots.items():
                if one.holder.lease:
                    held.add((lock_key(one.holder.lease), str(Entry(one.holder.claim, slot, key))))
                if one.until is not None:
                    due.add(str(Entry(one.holder.task, slot, key)))
        assert indexed == held
        assert set(self._names(root + "/due")) == due
        assert {*self._names(root + "/held")} <= owners

    def _names(self, path: str) -> list[str]:
        from kazoo.exceptions import NoNodeError

        try:
            return self.admin.get_children(path)
        except NoNodeError:
            return []


def expire(link: Link, url: str) -> None:
    """End a session as the servers do when they have not heard of it; back when its client knows."""
    from kazoo.client import KazooClient

    lost = threading.Event()
    client = link._client
    if client is None:
        return
    client.add_listener(lambda state: lost.set() if state == "LOST" else None)
    double = KazooClient(url.partition("://")[2].partition("/")[0], client_id=client.client_id)
    double.start()
    double.stop()
    double.close()
    with suppress(OSError):  # the server may have closed it
        client._connection._socket.shutdown(socket.SHUT_RDWR)
    assert lost.wait(20), "the session lives on"


@pytest.fixture(params=["memory", "redis", "zookeeper"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "memory":
        memory = MemoryBackend()
        yield memory
        memory.check_leaks()
    else:
        server: RedisBackend | ZooKeeperBackend
        if request.param == "redis":
            server = RedisBackend(request.getfixturevalue("redis_server").url)
        else:
            server = ZooKeeperBackend(request.getfixturevalue("zookeeper_server").url)
        try:
            yield server
            server.check_leaks()
        finally:
            server.close()
