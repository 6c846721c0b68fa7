"""Keys under which one message is under way, in ZooKeeper."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from celery_ha.model import Reservation
from celery_ha.store.base import Uniques
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.link import Link, get
from celery_ha.store.zookeeper.ops import Create, Delete, Write
from celery_ha.store.zookeeper.znodes import Paths, lock_key


@dataclass(frozen=True)
class _Held:
    """A znode as it was read."""

    task: str
    published: bool
    until: float
    version: int

    def data(self) -> bytes:
        return json.dumps({"schema": 1, "task": self.task, "published": self.published, "until": self.until}).encode()


class ZooKeeperUniques(Uniques):
    """Keys in ZooKeeper; see :class:`~celery_ha.store.base.Uniques`.

    A key that ran out stays as a znode until its task is published again.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock) -> None:
        self._link = link
        self._paths = paths
        self._clock = clock

    def claim_key(self, key: str, task: str, ttl: float) -> Reservation:
        def claim() -> Reservation:
            held = self._read(key)
            now, latest = self._clock.read()
            if held is not None and held.until > now and held.task != task:
                return Reservation(held.task, published=held.published)
            mine = held is not None and held.until > now
            published, until = (held.published, held.until) if held is not None and mine else (False, 0.0)
            version = -1 if held is None else held.version
            self._write(key, _Held(task, published, max(until, latest + ttl), version))
            return Reservation(task, published=published)

        return self._link.persist(claim)

    def keep_key(self, key: str, task: str, ttl: float) -> bool:
        def keep(held: _Held) -> None:
            self._write(key, _Held(task, published=True, until=self._clock.read()[1] + ttl, version=held.version))

        return self._if_mine(key, task, keep)

    def free_key(self, key: str, task: str) -> bool:
        def free(held: _Held) -> None:
            self._link.commit(Delete(self._path(key), held.version))

        return self._if_mine(key, task, free)

    def _if_mine(self, key: str, task: str, change: Callable[[_Held], None]) -> bool:
        def attempt() -> bool:
            held = self._read(key)
            if held is None or held.task != task or held.until <= self._clock.read()[0]:
                return False
            change(held)
            return True

        return self._link.persist(attempt)

    def _read(self, key: str) -> _Held | None:
        (found,) = self._link.ask(get(self._path(key)))
        if found is None:
            return None
        record, stat = json.loads(found[0]), found[1]
        return _Held(record["task"], record["published"], record["until"], stat.version)

    def _write(self, key: str, held: _Held) -> None:
        if held.version < 0:
            self._link.commit(Create(self._path(key), held.data()))
        else:
            self._link.commit(Write(self._path(key), held.data(), held.version))

    def _path(self, key: str) -> str:
        return f"{self._paths.at('uniques')}/{lock_key(key)}"
