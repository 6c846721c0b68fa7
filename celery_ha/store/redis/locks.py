"""Locks that belong to a lease, in Redis."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas

_MICRO = 1_000_000
#: Locks looked at by one sweep.
SWEEP = 200
#: Seconds before a lock that cannot be granted to anybody now is asked for again by a caller that waits.
AGAIN = 0.1


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
        self._slice = timeout / 2

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
        deadline = time.monotonic() + wait
        answer = f"{self._prefix}answer:{secrets.token_hex(8)}" if wait > 0 else ""
        fields = (name, *_fields(holder), int(inherit * _MICRO))
        terms = (limit, int((max_hold or 0) * _MICRO), answer)
        with self._pool.link() as link:
            while True:
                link.identify("")
                token, again, *other, in_line = link.run_script("lock_acquire", *fields, link.run, *terms)
                if not token and in_line > 0:
                    token = self._stand_in_line(link, name, holder.lease, answer, deadline)
                elif not token and in_line == 0 and (left := deadline - time.monotonic()) > 0:
                    # Nobody is granted anything now, so there is no line to stand in.
                    time.sleep(min(AGAIN, left))
                    continue
                if not token:
                    return Grant(None, _holder(*other))
                self._replicas.confirm(link)
                return Grant(int(token), again=bool(again))

    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        return self._held(name, holder, token, free=True)

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        return bool(self._held(name, holder, token, free=False))

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        with self._pool.link() as link:
            freed: int = link.run_script("lock_ended", len(claims), *claims, *tasks)
        return freed

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

    def _stand_in_line(self, link: Link, name: str, lease: str, answer: str, deadline: float) -> bytes:
        """Wait for the token, at most until the deadline; what comes at the last moment counts.

        A line passes over those whose lease is not open any more, so they need not wait.
        """
        while (left := deadline - time.monotonic()) > 0:
            piece = max(min(left, self._slice), 0.001)
            reply, is_open = link.call(("BLPOP", answer, f"{piece:.3f}"), ("HEXISTS", f"{self._prefix}leases", lease))
            if reply is not None:
                token: bytes = reply[1]
                return token
            if not is_open:
                break
        late: bytes = link.run_script("lock_unwait", name, answer)
        return late


def _fields(holder: Holder) -> tuple[str, str, str]:
    return holder.lease, holder.claim, holder.task


def _holder(lease: bytes, claim: bytes, task: bytes) -> Holder | None:
    if not (lease or claim or task):
        return None
    return Holder(lease.decode(), claim.decode(), task.decode())
