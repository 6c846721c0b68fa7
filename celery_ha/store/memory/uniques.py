"""Keys under which one message is under way, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_ha.model import Reservation
from celery_ha.store.base import Uniques
from celery_ha.store.memory.server import HeldKey

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore


class MemoryUniques(Uniques):
    """Keys in memory; see :class:`~celery_ha.store.base.Uniques`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def claim_key(self, key: str, task: str, ttl: float) -> Reservation:
        with self._client.call() as server:
            held = _current(server, key)
            if held is None:
                held = server.memory.uniques[key] = HeldKey(task, server.now() + ttl)
            elif held.task == task:
                held.until = max(held.until, server.now() + ttl)
            return Reservation(held.task, published=held.published)

    def keep_key(self, key: str, task: str, ttl: float) -> bool:
        with self._client.call() as server:
            held = _current(server, key)
            if held is None or held.task != task:
                return False
            held.until, held.published = server.now() + ttl, True
            return True

    def free_key(self, key: str, task: str) -> bool:
        with self._client.call() as server:
            held = _current(server, key)
            if held is None or held.task != task:
                return False
            del server.memory.uniques[key]
            return True


def _current(server: MemoryServer, key: str) -> HeldKey | None:
    held = server.memory.uniques.get(key)
    if held is not None and held.until <= server.now():
        del server.memory.uniques[key]
        return None
    return held
