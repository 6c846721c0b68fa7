"""Keys under which one message is under way, in Redis."""

from __future__ import annotations

from celery_ha.model import Reservation
from celery_ha.store.base import Uniques
from celery_ha.store.redis.pool import LinkPool


class RedisUniques(Uniques):
    """Keys in Redis; see :class:`~celery_ha.store.base.Uniques`.

    Args:
        pool: connections for whatever thread or child asks.
    """

    def __init__(self, pool: LinkPool) -> None:
        self._pool = pool

    def claim_key(self, key: str, task: str, ttl: float) -> Reservation:
        with self._pool.link() as link:
            holder, published = link.run_script("unique_claim", key, task, _milliseconds(ttl))
        return Reservation(holder.decode(), published=bool(published))

    def keep_key(self, key: str, task: str, ttl: float) -> bool:
        with self._pool.link() as link:
            return bool(link.run_script("unique_keep", key, task, _milliseconds(ttl)))

    def free_key(self, key: str, task: str) -> bool:
        with self._pool.link() as link:
            return bool(link.run_script("unique_free", key, task))


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
