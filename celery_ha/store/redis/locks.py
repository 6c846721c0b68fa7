"""Locks that belong to a lease, in Redis."""

from __future__ import annotations

from collections.abc import Mapping

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas

_MICRO = 1_000_000


class RedisLocks(LockStore):
    """Locks in Redis; see :class:`~celery_ha.store.base.LockStore`.

    Args:
        pool: connections for whatever thread or child asks.
        replicas: how many must confirm a grant.
    """

    def __init__(self, pool: LinkPool, replicas: Replicas) -> None:
        self._pool = pool
        self._replicas = replicas

    def acquire(self, name: str, holder: Holder, *, inherit: float) -> Grant:
        with self._pool.link() as link:
            link.identify("")
            token, again, *other = link.run_script(
                "lock_acquire", name, *_fields(holder), int(inherit * _MICRO), link.run
            )
            if not token:
                return Grant(None, _holder(*other))
            self._replicas.confirm(link)
        return Grant(int(token), again=bool(again))

    def release(self, name: str, holder: Holder, token: int) -> bool:
        return self._held(name, holder, token, free=True)

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        return self._held(name, holder, token, free=False)

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        with self._pool.link() as link:
            freed: int = link.run_script("lock_ended", len(claims), *claims, *tasks)
        return freed

    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        flat = [text for pair in restarted.items() for text in pair]
        with self._pool.link() as link:
            settled: int = link.run_script("lock_settle", lease, *flat)
        return settled

    def _held(self, name: str, holder: Holder, token: int, *, free: bool) -> bool:
        with self._pool.link() as link:
            return bool(link.run_script("lock_release", name, *_fields(holder), token, int(free)))


def _fields(holder: Holder) -> tuple[str, str, str]:
    return holder.lease, holder.claim, holder.task


def _holder(lease: bytes, claim: bytes, task: bytes) -> Holder | None:
    if not (lease or claim or task):
        return None
    return Holder(lease.decode(), claim.decode(), task.decode())
