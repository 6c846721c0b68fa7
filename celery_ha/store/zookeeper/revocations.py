"""Revoked tasks, in ZooKeeper: a znode each, its data the time until which it counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import quote, unquote

from celery_ha.store.base import Revocations
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.link import Conflict, Link, children, get
from celery_ha.store.zookeeper.ops import Create, Delete, Write
from celery_ha.store.zookeeper.znodes import Paths


class ZooKeeperRevocations(Revocations):
    """See :class:`~celery_ha.store.base.Revocations`.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock) -> None:
        self._link = link
        self._folder = paths.at("revoked")
        self._clock = clock

    def remember(self, tasks: Sequence[str], ttl: float) -> None:
        for task in tasks:
            self._link.persist(partial(self._remember, task, ttl))

    def current(self) -> frozenset[str]:
        (names,) = self._link.ask(children(self._folder))
        paths = [f"{self._folder}/{name}" for name in names or ()]
        now, found = self._clock.read()[0], set()
        for path, answer in zip(paths, self._link.ask(*map(get, paths)), strict=True):
            if answer is None:
                continue
            data, stat = answer
            if float(data) > now:
                found.add(unquote(path.rpartition("/")[2][1:]))
            else:
                self._forget(path, stat.version)
        return frozenset(found)

    def _remember(self, task: str, ttl: float) -> None:
        path = f"{self._folder}/={quote(task, safe='')}"
        until = self._clock.read()[1] + ttl
        (found,) = self._link.ask(get(path))
        if found is None:
            self._link.commit(Create(path, str(until).encode()))
        else:
            data, stat = found
            self._link.commit(Write(path, str(max(until, float(data))).encode(), stat.version))

    def _forget(self, path: str, version: int) -> None:
        try:
            self._link.commit(Delete(path, version))
        except Conflict:
            return  # it was revoked again, or somebody else forgot it
