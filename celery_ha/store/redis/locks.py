"""Locks that belong to a lease, in Redis."""

from __future__ import annotations

from collections.abc import Mapping

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.persistent import Persistent
from celery_ha.store.redis.asking import RedisAsking
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas

#: Locks looked at by one sweep.
SWEEP = 200


class RedisLocks(LockStore):
    """Locks in Redis; see :class:`~celery_ha.store.base.LockStore`.

    Args:
        pool: connections for whatever thread or child asks.
        replicas: how many must confirm a grant.
        prefix: prefix of every key.
        timeout: seconds after which a read fails; a wait is cut into pieces shorter than that.
    """

    def __init__(self, pool: LinkPool, replicas: Replicas, prefix: str, timeout: float) -> None:
        self._pool = pool
        self._replicas = replicas
        self._prefix = prefix
        self._timeout = timeout
        self._persistent = Persistent()

    def acquire(
        self,
        name: str,
        holder: Holder,
        *,
        inherit: float,
        limit: int = 1,
        max_hold: float | None = None,
        wait: float = 0.0,
    ) -> Grant:
        terms = (inherit, limit, max_hold or 0.0)
        asking = RedisAsking(self._pool, self._replicas, self._prefix, self._timeout, name, holder, terms, wait)
        try:
            return asking.decide()
        except BaseException:
            # A time limit, the loss of another lock, a store that does not answer: nobody waits any more, and what
            # is granted, now or by a request that is still on its way, would be held for as long as the lease lives.
            self._persistent.run(asking.forget)
            raise

    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        return self._held(name, holder, token, free=True)

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        return bool(self._held(name, holder, token, free=False))

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        with self._pool.link() as link:
            freed: int = link.run_script("lock_ended", len(claims), *claims, *tasks)
        return freed

    def claims(self, lease: str) -> frozenset[str]:
        with self._pool.link() as link:
            (found,) = link.call(("SMEMBERS", f"{self._prefix}claims:{lease}"))
        return frozenset(claim.decode() for claim in found)

    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        flat = [text for pair in restarted.items() for text in pair]
        with self._pool.link() as link:
            settled: int = link.run_script("lock_settle", lease, *flat)
        return settled

    def waiting(self, name: str) -> int:
        with self._pool.link() as link:
            return int(link.call(("LLEN", f"{self._prefix}line:{name}"))[0])

    def sweep(self) -> int:
        with self._pool.link() as link:
            served: int = link.run_script("lock_sweep", SWEEP)
        return served

    def _held(self, name: str, holder: Holder, token: int, *, free: bool) -> bool | None:
        with self._pool.link() as link:
            held: int = link.run_script("lock_release", name, *_fields(holder), token, int(free))
        return None if held < 0 else bool(held)


def _fields(holder: Holder) -> tuple[str, str, str]:
    return holder.lease, holder.claim, holder.task
