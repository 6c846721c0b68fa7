"""Locks that belong to a lease, in Redis."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from celery_ha.errors import StoreUnavailable
from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.persistent import Persistent
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas

_MICRO = 1_000_000
#: Locks looked at by one sweep.
SWEEP = 200
#: Seconds before a lock that cannot be granted to anybody now is asked for again by a caller that waits.
AGAIN = 0.1


@dataclass
class _Ask:
    """One call for a lock, however often it is repeated."""

    name: str
    holder: Holder
    #: Given up, another id takes its place.
    id: str
    #: Microseconds of trust, how many may hold it, microseconds it is held at the most.
    terms: tuple[int, int, int]
    #: Local monotonic time until which it waits; None: it does not.
    deadline: float | None

    def left(self) -> float:
        """Seconds left to wait."""
        return 0.0 if self.deadline is None else max(0.0, self.deadline - time.monotonic())


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
        self._stay = int(timeout * 2000)
        self._forgetter = Persistent()

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
        ask = _Ask(
            name,
            holder,
            secrets.token_hex(8),
            (int(inherit * _MICRO), limit, int((max_hold or 0) * _MICRO)),
            time.monotonic() + wait if wait > 0 else None,
        )
        try:
            return self._acquire(ask)
        except BaseException:
            # A time limit, the loss of another lock, a store that does not answer: nobody waits any more, and what
            # is granted, now or by a request that is still on its way, would be held for as long as the lease lives.
            self._forgetter.run(lambda: self._forget(ask))
            raise

    def _acquire(self, ask: _Ask) -> Grant:
        lost = False
        while True:
            try:
                token = self._give_up(ask) if lost else None
                lost = False
                grant = Grant(int(token)) if token else self._ask(ask)
            except StoreUnavailable:
                if not ask.left():
                    raise
                lost, grant = True, None
            if grant is not None:
                return grant
            time.sleep(min(AGAIN, ask.left()))

    def _ask(self, ask: _Ask) -> Grant | None:
        """Ask, and stand in line until it is decided; None: ask again."""
        inherit, limit, most = ask.terms
        with self._pool.link() as link:
            link.identify("")
            token, again, *other, in_line = link.run_script(
                "lock_acquire",
                ask.name,
                *_fields(ask.holder),
                inherit,
                link.run,
                limit,
                most,
                ask.id,
                self._stay if ask.left() else 0,
            )
            if in_line > 0:
                token = self._stand_in_line(link, ask)
                if token is None:
                    return None
            if token:
                self._replicas.confirm(link)
                return Grant(int(token), again=bool(again))
        # Not granted to anybody now, and nobody known to hold it: there is no line to stand in.
        return None if in_line == 0 and ask.left() else Grant(None, _holder(*other))

    def _stand_in_line(self, link: Link, ask: _Ask) -> bytes | None:
        """Wait for the token, until the deadline; what comes at the last moment counts.

        Returns:
            The token; empty if it was not granted and will not be; None: it was passed over, and asks again.
        """
        while left := ask.left():
            piece = max(min(left, self._slice), 0.001)
            (reply,) = link.call(("BLPOP", f"{self._prefix}answer:{ask.id}", f"{piece:.3f}"))
            if reply is not None:
                token: bytes = reply[1]
                return token
            stands: int = link.run_script(
                "lock_stay", ask.name, ask.terms[1], ask.id, self._stay, ask.holder.lease, ask.holder.claim
            )
            if stands < 0:
                break
            if stands == 0:
                return self._give_up(ask) or None
        return self._give_up(ask)

    def _give_up(self, ask: _Ask) -> bytes:
        """Leave the line, unless it has been granted; what is asked after this is another ask."""
        with self._pool.link() as link:
            token: bytes = link.run_script("lock_forget", ask.name, ask.holder.claim, ask.id, 1)
        ask.id = secrets.token_hex(8)
        return token

    def _forget(self, ask: _Ask) -> None:
        with self._pool.link() as link:
            link.run_script("lock_forget", ask.name, ask.holder.claim, ask.id, 0)

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


def _fields(holder: Holder) -> tuple[str, str, str]:
    return holder.lease, holder.claim, holder.task


def _holder(lease: bytes, claim: bytes, task: bytes) -> Holder | None:
    if not (lease or claim or task):
        return None
    return Holder(lease.decode(), claim.decode(), task.decode())
