"""One call for a lock, which may wait in line, lose answers, and be given up."""

from __future__ import annotations

import secrets
from math import inf
from time import monotonic

from celery_ha.model import Grant, Holder
from celery_ha.store import asking
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas

_MICRO = 1_000_000
#: A caller that has said nothing for so many timeouts of the store is passed over: it may be gone.
SILENCES = 8
#: What a lock has left that no ``max_hold`` ends: another thread of the claim took it without.
FOR_EVER = -1
#: Until when a lock is held that was over before its holder heard of it.
GONE = -inf


class RedisAsking(asking.Asking):
    """A caller's question for a lock until it is decided.

    It has an id, the same in every repetition: a lock that was granted to it is known for its own, and its place in
    line outlives a lost connection.

    Args:
        pool: connections.
        replicas: how many must confirm a grant.
        prefix: prefix of every key.
        timeout: seconds after which a read fails; a wait is cut into pieces shorter than that.
        name: the lock.
        holder: who asks.
        terms: seconds of trust, how many may hold it, seconds it is held at the most (0: for ever).
        wait: seconds to stand in line.
    """

    def __init__(
        self,
        pool: LinkPool,
        replicas: Replicas,
        prefix: str,
        timeout: float,
        name: str,
        holder: Holder,
        terms: tuple[float, int, float],
        wait: float,
    ) -> None:
        super().__init__(wait)
        self._pool = pool
        self._replicas = replicas
        self._prefix = prefix
        self._slice = timeout / 2
        self._silence = int(timeout * SILENCES * 1000)
        self._name = name
        self._holder = holder
        inherit, self._limit, most = terms
        self._inherit, self._most = int(inherit * _MICRO), int(most * _MICRO)
        self._max_hold = most
        self._id = secrets.token_hex(8)
        self._busy: Holder | None = None
        self._in_line: float | None = None

    def forget(self) -> None:
        """Leave the line and give back what was granted; nothing is granted to this call any more.

        Raises:
            StoreUnavailable: no answer; ask again.
        """
        self._leave(0)

    def _once(self, *, lost: bool) -> Grant | None:
        """Ask, and stand in line until it is decided; None: ask again."""
        with self._pool.link() as link:
            link.identify("")
            asked = monotonic()
            found = self._find(link) if lost else self._ask(link)
            token: bytes | None = found[0]
            again, stands = found[1:]
            if stands > 0:
                token = self._stand(link)
            elif not token and stands == 0 and self._left():
                return None  # nobody is known to hold it, and it is granted to nobody now
            if token is None:
                return None
            if not token:
                return Grant(None, self._busy)
            self._replicas.confirm(link)
            until = asked + self._max_hold if self._most else None
            if until is not None and (lost or again or stands):
                until = self._until(link, token)
        if until == GONE:
            return None if self._left() else Grant(None, self._busy)
        return Grant(int(token), again=bool(again), in_line=self._in_line, until=until)

    def _until(self, link: Link, token: bytes) -> float:
        """When a lock is free by itself that was granted nobody knows when; :data:`GONE`: it is."""
        asked = monotonic()
        left: int = link.run_script("lock_left", self._holder.claim, token)
        if left == FOR_EVER:
            return inf
        return asked + left / 1000 if left >= 0 else GONE

    def _ask(self, link: Link) -> tuple[bytes, int, int]:
        silence = self._silence if self._waits else 0
        reply = link.run_script(
            "lock_acquire",
            self._name,
            *_fields(self._holder),
            self._inherit,
            link.run,
            self._limit,
            self._most,
            self._id,
            silence,
        )
        if isinstance(reply, bytes):
            return reply, 0, 0
        token, again, *other, stands = reply[:6]
        self._busy = _holder(*other)
        self._in_line = reply[6] / _MICRO if reply[6:] else None
        return token, again, stands

    def _find(self, link: Link) -> tuple[bytes, int, int]:
        """After a lost answer: whether it stands in line, or was granted the lock."""
        stands = self._stay(link)
        return (self._leave(1) if stands == 0 else b""), 0, stands

    def _stand(self, link: Link) -> bytes | None:
        """Wait for the token until the deadline; what comes at the last moment counts.

        Returns:
            The token; empty if it was not granted and will not be; None: it was passed over, and asks again.
        """
        while left := self._left():
            piece = max(min(left, self._slice), 0.001)
            (reply,) = link.call(("BLPOP", f"{self._prefix}answer:{self._id}", f"{piece:.3f}"))
            if reply is not None:
                token: bytes = reply[1]
                return token
            stands = self._stay(link)
            if stands < 0:
                break
            if stands == 0:
                return self._leave(1) or None
        return self._leave(1)

    def _stay(self, link: Link) -> int:
        stands: int = link.run_script(
            "lock_stay",
            self._name,
            self._limit,
            self._id,
            self._silence,
            self._holder.lease,
            self._holder.claim,
            link.run,
        )
        return stands

    def _leave(self, unless_granted: int) -> bytes:
        """Leave the line; what is asked after this is another question."""
        with self._pool.link() as link:
            token: bytes = link.run_script("lock_forget", self._name, self._holder.claim, self._id, unless_granted)
        if not token:
            self._id = secrets.token_hex(8)
        return token


def _fields(holder: Holder) -> tuple[str, str, str]:
    return holder.lease, holder.claim, holder.task


def _holder(lease: bytes, claim: bytes, task: bytes) -> Holder | None:
    if not (lease or claim or task):
        return None
    return Holder(lease.decode(), claim.decode(), task.decode())
