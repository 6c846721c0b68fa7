"""Revoked tasks, in Redis."""

from __future__ import annotations

from collections.abc import Sequence

from celery_ha.store.base import Revocations
from celery_ha.store.redis.pool import LinkPool


class RedisRevocations(Revocations):
    """See :class:`~celery_ha.store.base.Revocations`.

    Args:
        pool: connections for whatever thread asks.
    """

    def __init__(self, pool: LinkPool) -> None:
        self._pool = pool

    def remember(self, tasks: Sequence[str], ttl: float) -> None:
        with self._pool.link() as link:
            link.run_script("revoke", ttl, *tasks)

    def current(self) -> frozenset[str]:
        with self._pool.link() as link:
            return frozenset(task.decode() for task in link.run_script("revoke", 0))
