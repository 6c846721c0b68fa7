"""Parked messages, where one Redis is both broker and store."""

from __future__ import annotations

from celery_ha.brokers.layout import Layout
from celery_ha.model import Holder, Parked
from celery_ha.store.base import Parking
from celery_ha.store.redis.store import RedisStore

_MICRO = 1_000_000


class RedisParking(Parking):
    """See :class:`~celery_ha.store.base.Parking`.

    Args:
        store: the store.
        layout: the broker's key names, in the same database.
    """

    def __init__(self, store: RedisStore, layout: Layout) -> None:
        self._pool = store.pool
        self._layout = layout

    def park(self, name: str, holder: Holder, *, limit: int, inherit: float) -> Parked:
        layout = self._layout
        with self._pool.link() as link:
            answer: bytes = link.run_script(
                "lock_park",
                name,
                holder.lease,
                holder.claim,
                holder.task,
                int(inherit * _MICRO),
                limit,
                layout.prefix,
                layout.bell(""),
                layout.sep,
                keys=(layout.open, layout.flight(holder.lease)),
            )
        return Parked(answer.decode())


def pour(store: RedisStore) -> int:
    """Put every message that waits for a lock back to the front of its queue; returns how many lines there were.

    Raises:
        StoreUnavailable: the store was not reached; repeat it.
    """
    with store.pool.link() as link:
        lines: int = link.run_script("lines_pour")
    return lines
