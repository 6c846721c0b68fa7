"""What the entries of a schedule fired last, in Redis."""

from __future__ import annotations

from typing import Any

from celery_ha.errors import LockLost
from celery_ha.model import Beats, Firing, Term
from celery_ha.store.base import Firings
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.records import dump_firing, load_firing, pairs
from celery_ha.store.redis.replicas import Replicas

#: Claimed firings to remember, and for how many seconds.
HISTORY_LIMIT = 500
HISTORY_TTL = 7 * 24 * 3600
#: Entries dropped by one script, which may not unpack more.
CHUNK = 1000


class RedisFirings(Firings):
    """Firings in Redis; see :class:`~celery_ha.store.base.Firings`.

    Args:
        pool: connections for whatever thread or child asks.
        replicas: how many must confirm a change.
        prefix: prefix of every key.
    """

    def __init__(self, pool: LinkPool, replicas: Replicas, prefix: str) -> None:
        self._pool = pool
        self._replicas = replicas
        self._prefix = prefix

    def read(self, office: str) -> Beats:
        # The office is a lock that one may hold: its first slot.
        lock = f"{self._prefix}lock:0:{office}"
        with self._pool.link() as link:
            flat, lease = link.call(("HGETALL", f"{self._prefix}beat"), ("HGET", lock, "lease"))
        firings = {entry: load_firing(record) for entry, record in pairs(flat).items()}
        return Beats(firings, lease.decode() if lease else None)

    def replace(self, term: Term, old: Firing | None, new: Firing) -> Firing:
        record = dump_firing(new)
        claimed = old is None or new.number > old.number
        limit = HISTORY_LIMIT if new.number and claimed else 0
        expected = "" if old is None else dump_firing(old)
        with self._pool.link() as link:
            there: bytes | None = link.run_script(
                "beat_replace", *_fields(term), new.entry, expected, record, limit, HISTORY_TTL
            )
            self._replicas.confirm(link)
        if there is None:
            raise LockLost
        return load_firing(there)

    def drop(self, term: Term, entries: tuple[str, ...]) -> int:
        dropped = 0
        with self._pool.link() as link:
            for at in range(0, len(entries), CHUNK):
                part: int = link.run_script("beat_drop", *_fields(term), *entries[at : at + CHUNK])
                if part < 0:
                    raise LockLost
                dropped += part
        return dropped

    def history(self) -> list[tuple[float, Firing]]:
        with self._pool.link() as link:
            (listed,) = link.call(("LRANGE", f"{self._prefix}beat:history", 0, -1))
        return [_past(line) for line in listed]


def _fields(term: Term) -> tuple[Any, ...]:
    holder = term.holder
    return term.office, holder.lease, holder.claim, holder.task, term.token


def _past(line: bytes) -> tuple[float, Firing]:
    at, _, record = line.partition(b" ")
    return float(at), load_firing(record)
