"""A master, two replicas and three sentinels, all real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel as Directory

from tests.support.fleet import eventually
from tests.support.server import RedisServer, Sentinel

NAME = "probe"


class SentinelSet:
    """Started as a whole; whoever is master can be killed."""

    def __init__(self, binary: str) -> None:
        self.servers = [RedisServer(binary)]
        following = ["--replicaof", "127.0.0.1", str(self.servers[0].port)]
        self.servers += [RedisServer(binary, *following) for _ in range(2)]
        self.sentinels = [Sentinel(binary, self.servers[0], NAME, quorum=2) for _ in range(3)]
        self.directory = Directory([("127.0.0.1", each.port) for each in self.sentinels], socket_timeout=1.0)
        eventually(self._complete, why="two replicas and three sentinels know each other")

    @property
    def url(self) -> str:
        return ";".join(f"sentinel://127.0.0.1:{each.port}/0" for each in self.sentinels)

    @property
    def master(self) -> RedisServer:
        _, port = self.directory.discover_master(NAME)
        return next(server for server in self.servers if server.port == port)

    def client(self) -> redis.Redis:
        """A client of whoever is master."""
        return self.directory.master_for(NAME, socket_timeout=5.0, retry=Retry(ConstantBackoff(0.2), 30))

    def strike_master(self, signum: int = signal.SIGKILL) -> RedisServer:
        """Kill or freeze it and wait until another is in its place; returns the one that was struck."""
        dead = self.master
        dead.send(signum)
        eventually(lambda: self._master_is_not(dead), within=30, every=0.1, why="a new master")
        return dead

    def _master_is_not(self, dead: RedisServer) -> bool:
        try:
            return self.master is not dead and self.client().ping()
        except redis.RedisError:
            return False

    def _complete(self) -> bool:
        try:
            found = [self.directory.sentinels[0].sentinel_master(NAME)]
        except redis.RedisError:
            return False
        return all(each["num-slaves"] == 2 and each["num-other-sentinels"] == 2 for each in found)

    def close(self) -> None:
        for each in self.directory.sentinels:
            each.close()
        for each in (*self.sentinels, *self.servers):
            each.close()


@contextmanager
def sentinel_set(binary: str) -> Iterator[SentinelSet]:
    made = SentinelSet(binary)
    try:
        yield made
    finally:
        made.close()
