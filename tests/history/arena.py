"""Where a round takes place: the servers, what can be seen of the locks there, and how to cut a connection."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf

import redis

from celery_ha.store.zookeeper.records import load_node, load_waiter
from celery_ha.store.zookeeper.store import DEFAULT_PREFIX, SESSION_PART, SHORTEST_SESSION
from celery_ha.store.zookeeper.url import parse
from celery_ha.store.zookeeper.znodes import Paths, lease_of, lock_key
from tests.history.client import LOCKS
from tests.history.dates import dates
from tests.history.peek import Away, Peek
from tests.history.plan import PERSISTENCE, Plan
from tests.support.server import RedisServer
from tests.support.zookeeper import ZooKeeper

#: Lease and claim of everybody in line, the first one first.
Line = list[tuple[str, str]]


class Arena(ABC):
    """The servers of one round. Its parts raise :class:`~tests.history.peek.Away` if the store does not answer."""

    #: URL of the broker, and of the store.
    broker: str
    store: str
    #: The one that is struck.
    server: RedisServer | ZooKeeper
    #: Seconds after which the store may drop the session of a silent process; inf: it knows no sessions.
    session = inf

    @abstractmethod
    def owners(self) -> dict[str, int]:
        """Process id by open lease, of those that are no workers."""

    @abstractmethod
    def cut(self, pid: int) -> None:
        """Close all connections of a process to the store, as a proxy that restarts does."""

    @abstractmethod
    def lines(self) -> dict[str, Line]:
        """Who stands in line for each lock."""

    @abstractmethod
    def left(self) -> list[str]:
        """What there is of locks, of whatever kind."""

    def keeps(self) -> bool:
        """Whether the server would remember everything if it were killed now."""
        return True

    def dates(self) -> Mapping[int, float]:
        """When each token was given, where it does not say so itself; seconds of the server's wall clock."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End the servers."""


class RedisArena(Arena):
    """Broker and store are one Redis."""

    def __init__(self, binary: str, persistence: str) -> None:
        self.server = RedisServer(binary, *PERSISTENCE[persistence])
        self._persistence = persistence
        self.broker = self.store = self.server.url
        self._admin = redis.Redis.from_url(self.server.url, socket_timeout=0.25, retry=None)

    def owners(self) -> dict[str, int]:
        with _answers():
            found = self._admin.hgetall("_ha:nodes")
        return {lease.decode(): _pid(json.loads(record).get("name", "")) for lease, record in found.items()}

    def cut(self, pid: int) -> None:
        names = tuple(f"ha:{lease}:" for lease, owner in self.owners().items() if owner == pid)
        with _answers():
            theirs = [one["id"] for one in self._admin.client_list() if one["name"].startswith(names)]
            for number in theirs:
                self._admin.execute_command("CLIENT", "KILL", "ID", number)

    def lines(self) -> dict[str, Line]:
        pipe = self._admin.pipeline(transaction=True)
        for name in LOCKS:
            pipe.lrange(f"_ha:line:{name}", 0, -1)
        with _answers():
            found = pipe.execute()
        return {name: [_fields(entry) for entry in line] for name, line in zip(LOCKS, found, strict=True)}

    def left(self) -> list[str]:
        patterns = ("_ha:lock:*", "_ha:line:*", "_ha:held:*", "_ha:claims:*")
        with _answers():
            return sorted(key.decode() for pattern in patterns for key in self._admin.scan_iter(pattern))

    def keeps(self) -> bool:
        if self._persistence == "everysec":  # while the disk is slow it writes nothing down for up to two seconds
            with suppress(Away), _answers():
                return int(self._admin.info("persistence")["aof_pending_bio_fsync"]) == 0
            return False
        return self._persistence == "always"

    def close(self) -> None:
        self._admin.close()
        self.server.close()


class ZooKeeperArena(Arena):
    """The store is one ZooKeeper, the broker a Redis that is never struck."""

    def __init__(self, binary: str, ttl: float) -> None:
        self._redis = RedisServer(binary)
        self.broker = self._redis.url
        self._zookeeper = self.server = ZooKeeper()
        try:
            self.server.start()
        except RuntimeError:
            self.close()
            raise
        self.store = self.server.url
        self.session = max(ttl * SESSION_PART, SHORTEST_SESSION)
        self._paths = Paths(f"{parse(self.store).path}/{DEFAULT_PREFIX}")
        self._peek = Peek(self.server.port)
        #: Who stands at a place in line; a place is never used again.
        self._places: dict[str, tuple[str, str]] = {}

    def owners(self) -> dict[str, int]:
        return {lease: pid for lease, (pid, _) in self._nodes().items()}

    def cut(self, pid: int) -> None:
        for owner, sessions in self._nodes().values():
            for session in sessions if owner == pid else ():
                self._peek.take_over(session, self.session)

    def lines(self) -> dict[str, Line]:
        return {name: list(self._line(self._paths.lock(lock_key(name)))) for name in LOCKS}

    def left(self) -> list[str]:
        folders = [self._paths.at("locks"), self._paths.at("due"), *self._under(self._paths.at("held"))]
        return [path for folder in folders for path in self._under(folder)]

    def keeps(self) -> bool:
        """Whether the server would remember everything if it were killed now."""
        return True

    def dates(self) -> Mapping[int, float]:
        return dates(self._zookeeper.folder / "data")

    def close(self) -> None:
        self._redis.close()
        self._zookeeper.close()

    def _line(self, path: str) -> Iterator[tuple[str, str]]:
        places = [name for name in self._peek.children(path) if name.startswith("line-")]
        for place in sorted(places, key=lambda name: int(name.rpartition("-")[2])):
            if place not in self._places and (data := self._peek.data(f"{path}/{place}")) is not None:
                holder = load_waiter(data).holder
                self._places[place] = holder.lease, holder.claim
            if place in self._places:
                yield self._places[place]

    def _nodes(self) -> dict[str, tuple[int, list[int]]]:
        """Process id and numbers of the sessions, by open lease."""
        found = {}
        for path in self._under(self._paths.at("leases")):
            if (data := self._peek.data(path)) is not None:
                node = load_node(lease_of(path.rpartition("/")[2]), data, 0)
                found[node.lease] = _pid(node.name), [int(session, 16) for session in node.connections]
        return found

    def _under(self, folder: str) -> list[str]:
        return [f"{folder}/{name}" for name in sorted(self._peek.children(folder))]


@contextmanager
def arena(plan: Plan, binary: str) -> Iterator[Arena]:
    """The servers that a plan asks for; they end with the block."""
    made = ZooKeeperArena(binary, plan.ttl) if plan.store == "zookeeper" else RedisArena(binary, plan.persistence)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise Away(error) from error


def _pid(name: object) -> int:
    """Processes that only take locks are named ``<pid>@<host>``."""
    number = str(name).partition("@")[0]
    return int(number) if number.isdigit() else 0


def _fields(entry: bytes) -> tuple[str, str]:
    """Lease and claim of a caller in line; the form of an entry is told in ``line.lua``."""
    parts: list[str] = []
    while entry:
        length, _, rest = entry.partition(b":")
        parts.append(rest[: int(length)].decode())
        entry = rest[int(length) :]
    return parts[1], parts[2]
