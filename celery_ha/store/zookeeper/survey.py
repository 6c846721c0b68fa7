"""What people ask about a store, in ZooKeeper."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from celery_ha import model
from celery_ha.model import SCHEMA, Failover, HeldLock, Release, Waiter
from celery_ha.store.survey import Survey
from celery_ha.store.zookeeper.broom import Broom
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.court import HISTORY_LIMIT, HISTORY_TTL
from celery_ha.store.zookeeper.desk import Desk
from celery_ha.store.zookeeper.link import Link, children, get, sync
from celery_ha.store.zookeeper.ops import Create
from celery_ha.store.zookeeper.records import load_failover, load_release, load_waiter
from celery_ha.store.zookeeper.rules import View
from celery_ha.store.zookeeper.znodes import Paths, lock_key


class ZooKeeperSurvey(Survey):
    """See :class:`~celery_ha.store.base.Survey`.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
        asked: seconds after which sessions are to time out; the servers have the last word.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock, asked: float) -> None:
        self._link = link
        self._asked = asked
        self._paths = paths
        self._clock = clock
        self._desk = Desk(link, paths, clock)
        self._notes = Broom(link, clock, paths.at("releases"), HISTORY_TTL, HISTORY_LIMIT)

    def now(self) -> float:
        return self._clock.read()[0]

    def facts(self) -> Mapping[str, str]:
        return {**self._link.describe(), "session_asked": f"{self._asked:g}"}

    def failovers(self, limit: int) -> tuple[Failover, ...]:
        failovers = (load_failover(data, stat.ctime) for data, stat in self._newest(self._paths.at("history"), limit))
        return tuple(failover for failover in failovers if failover is not None)

    def slots(self) -> frozenset[tuple[str, int]]:
        return frozenset((lock.name, lock.slot) for lock in self.locks())

    def locks(self, slots: Iterable[tuple[str, int]] | None = None) -> tuple[HeldLock, ...]:
        if slots is None:
            found = [held for view in self._views() for held in _held(view)]
        else:
            wanted = frozenset(slots)
            views = (self._desk.read(name) for name in sorted({name for name, _ in wanted}))
            found = [held for view in views for held in _held(view) if (held.name, held.slot) in wanted]
        return tuple(sorted(found, key=lambda held: (held.name, held.slot)))

    def lines(self) -> Mapping[str, int]:
        return {view.lock.name: len(view.line) for view in self._views() if view.line}

    def line(self, name: str, limit: int) -> tuple[Waiter, ...]:
        path, view = self._paths.lock(lock_key(name)), self._desk.read(name)
        found = self._link.ask(*(get(f"{path}/{place}") for place in view.line[:limit]))
        holders = (load_waiter(answer[0]).holder for answer in found if answer is not None)
        return tuple(model.Waiter(holder.task, lease=holder.lease) for holder in holders)

    def release(self, name: str, tokens: Mapping[int, int], by: str) -> int:
        freed = self._link.persist(partial(self._break, name, tokens, by))
        if freed:
            self._link.persist(partial(self._desk.serve, lock_key(name)))
            self._notes.sweep()
        return freed

    def releases(self, limit: int) -> tuple[Release, ...]:
        return tuple(load_release(note) for note, _ in self._newest(self._paths.at("releases"), limit))

    def _newest(self, folder: str, limit: int) -> Iterator[tuple[bytes, Any]]:
        names = sorted(self._names(folder), reverse=True)[:limit]
        return filter(None, self._link.ask(*(get(f"{folder}/{name}") for name in names)))

    def _break(self, name: str, tokens: Mapping[int, int], by: str) -> int:
        view = self._desk.read(name)
        chosen = [held.slot for held in _held(view) if tokens.get(held.slot) == held.token]
        if not chosen:
            return 0
        after = view.lock
        for slot in chosen:
            after = after.without(slot)
        note = {"schema": SCHEMA, "lock": name, "by": by, "freed": len(chosen), "at": self.now()}
        path = self._paths.at("releases") + "/r-"
        self._desk.change(view, after, Create(path, json.dumps(note).encode(), numbered=True))
        return len(chosen)

    def _views(self) -> Iterator[View]:
        """Every lock that is there, each read by itself."""
        for key in sorted(self._names(self._paths.at("locks"))):
            if (view := self._desk.read_key(key)) is not None:
                yield view

    def _names(self, folder: str) -> list[str]:
        # What others wrote over other servers counts.
        _, names = self._link.ask(sync(self._paths.root), children(folder))
        return list(names or ())


def _held(view: View) -> Iterator[HeldLock]:
    for slot in view.lock.slots:
        held = view.held(slot)
        if held is not None:
            left = None if held.until is None else max(0.0, held.until - view.now[0])
            # A token is a transaction's number: it says nothing of when.
            yield HeldLock(view.lock.name, slot, held.holder, held.token, left)
