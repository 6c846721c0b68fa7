"""What the entries of a schedule fired last, in ZooKeeper."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from celery_ha.errors import LockLost
from celery_ha.model import Beats, Firing, Term
from celery_ha.store.base import Firings
from celery_ha.store.zookeeper.broom import Broom
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.desk import Desk
from celery_ha.store.zookeeper.link import Link, children, get, sync
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op, Write
from celery_ha.store.zookeeper.records import dump_firing, load_firing
from celery_ha.store.zookeeper.rules import MARK
from celery_ha.store.zookeeper.znodes import Paths, lock_key

#: Claimed firings to remember, and for how many seconds.
HISTORY_LIMIT = 500
HISTORY_TTL = 7 * 24 * 3600.0


class ZooKeeperFirings(Firings):
    """Firings in ZooKeeper, a znode an entry; see :class:`~celery_ha.store.base.Firings`.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock) -> None:
        self._link = link
        self._paths = paths
        self._desk = Desk(link, paths, clock)
        self._folder = paths.at("beat")
        self._past = paths.at("fired")
        self._broom = Broom(link, clock, self._past, HISTORY_TTL, HISTORY_LIMIT)

    def read(self, office: str) -> Beats:
        held = self._desk.read(office).held(0)
        found = self._all(self._folder)
        firings = {unquote(name[1:]): load_firing(data) for name, data, _ in found}
        return Beats(firings, held.holder.lease if held is not None and held.holder.lease else None)

    def replace(self, term: Term, old: Firing | None, new: Firing) -> Firing:
        path = self._path(new.entry)

        def attempt() -> Firing:
            conditions = self._in_office(term)
            (found,) = self._link.ask(get(path))
            if found is not None and (there := load_firing(found[0])) != old:
                return there
            record = dump_firing(new)
            ops: list[Op] = [Create(path, record) if found is None else Write(path, record, found[1].version)]
            if new.number and (old is None or new.number > old.number):
                ops.append(Create(f"{self._past}/f-", record, numbered=True))
            self._link.commit(*conditions, *ops)
            return new

        firing = self._link.persist(attempt)
        self._broom.sweep()
        return firing

    def drop(self, term: Term, entries: tuple[str, ...]) -> int:
        return sum(self._link.persist(lambda entry=entry: self._drop(term, entry)) for entry in entries)  # type: ignore[misc]

    def history(self) -> list[tuple[float, Firing]]:
        found = sorted(self._all(self._past), reverse=True)
        return [(at, load_firing(data)) for _, data, at in found]

    def _drop(self, term: Term, entry: str) -> int:
        conditions = self._in_office(term)
        (found,) = self._link.ask(get(self._path(entry)))
        if found is not None:
            self._link.commit(*conditions, Delete(self._path(entry), found[1].version))
        return int(found is not None)

    def _in_office(self, term: Term) -> Sequence[Op]:
        """What must hold when it is written: the lock as it was read, and an open lease.

        Raises:
            LockLost: the term is over.
        """
        _, lease = self._link.ask(sync(self._paths.root), get(self._paths.lease(term.holder.lease)))
        view = self._desk.read(term.office)
        if lease is None or view.own(term.holder, term.token) is None:
            raise LockLost
        path = self._paths.lock(lock_key(term.office))
        return (
            Check(self._paths.lease(term.holder.lease)),
            Check(f"{path}/{MARK}{view.lock.mark}"),
            Check(path, view.version),
        )

    def _all(self, folder: str) -> list[tuple[str, bytes, float]]:
        """Name, data and time of making of all in a folder."""
        _, names = self._link.ask(sync(self._paths.root), children(folder))
        names = names or []
        found = self._link.ask(*(get(f"{folder}/{name}") for name in names))
        return [
            (name, answer[0], answer[1].ctime / 1000)
            for name, answer in zip(names, found, strict=True)
            if answer is not None
        ]

    def _path(self, entry: str) -> str:
        return f"{self._folder}/={quote(entry, safe='')}"
