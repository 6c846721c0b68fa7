"""Revoked tasks, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from celery_ha.store.base import Revocations

if TYPE_CHECKING:
    from celery_ha.store.memory.store import MemoryStore


class MemoryRevocations(Revocations):
    """See :class:`~celery_ha.store.base.Revocations`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def remember(self, tasks: Sequence[str], ttl: float) -> None:
        with self._client.call() as server:
            revoked = server.memory.revoked
            for task in tasks:
                revoked[task] = max(revoked.get(task, 0.0), server.now() + ttl)

    def current(self) -> frozenset[str]:
        with self._client.call() as server:
            now, revoked = server.now(), server.memory.revoked
            for task in [task for task, until in revoked.items() if until <= now]:
                del revoked[task]
            return frozenset(revoked)
