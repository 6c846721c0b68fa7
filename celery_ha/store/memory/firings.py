"""What the entries of a schedule fired last, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_ha.errors import LockLost
from celery_ha.model import Beats, Firing, Term
from celery_ha.store.base import Firings
from celery_ha.store.memory.locks import held_slot

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore


class MemoryFirings(Firings):
    """Firings in memory; see :class:`~celery_ha.store.base.Firings`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def read(self, office: str) -> Beats:
        with self._client.call() as server:
            lock = server.memory.locks.get((office, 0))
            return Beats(dict(server.memory.firings), None if lock is None else lock.holder.lease)

    def replace(self, term: Term, old: Firing | None, new: Firing) -> Firing:
        with self._client.call() as server:
            _check(server, term)
            firings = server.memory.firings
            if firings.get(new.entry) in {None, old}:
                firings[new.entry] = new
                if new.number and (old is None or new.number > old.number):
                    server.memory.fired.appendleft((server.now(), new))
            return firings[new.entry]

    def drop(self, term: Term, entries: tuple[str, ...]) -> int:
        with self._client.call() as server:
            _check(server, term)
            return sum(server.memory.firings.pop(entry, None) is not None for entry in entries)

    def history(self) -> list[tuple[float, Firing]]:
        with self._client.call() as server:
            return list(server.memory.fired)


def _check(server: MemoryServer, term: Term) -> None:
    if held_slot(server, term.office, term.holder, term.token) is None:
        raise LockLost
