"""What people ask about a store, in Redis."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from celery_ha.errors import StoreError
from celery_ha.model import SCHEMA, Failover, HeldLock, Holder, Release, Waiter
from celery_ha.store.redis.court import HISTORY_LIMIT, HISTORY_TTL
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.records import load_failover, load_release
from celery_ha.store.survey import Survey

#: Keys looked at by one step of a scan.
STEP = 1_000
_GLOB = re.compile(r"([*?\[\]^\\-])")


class RedisSurvey(Survey):
    """See :class:`~celery_ha.store.base.Survey`.

    Args:
        pool: connections for whatever thread asks.
        prefix: prefix of every key.
    """

    def __init__(self, pool: LinkPool, prefix: str) -> None:
        self._pool = pool
        self._prefix = prefix

    def now(self) -> float:
        with self._pool.link() as link:
            seconds, micros = link.call(("TIME",))[0]
        return int(seconds) + int(micros) / 1e6

    def facts(self) -> Mapping[str, str]:
        with self._pool.link() as link:
            (info,) = link.call(("INFO",))
            found = parse_info(info.decode(errors="replace"))
            with suppress(StoreError):  # CONFIG is not permitted: it does not say
                (save,) = link.call(("CONFIG", "GET", "save"))
                found["save"] = b"".join(save[1:]).decode()
        return found

    def failovers(self, limit: int) -> tuple[Failover, ...]:
        with self._pool.link() as link:
            (entries,) = link.call(("LRANGE", self._prefix + "history", 0, limit - 1))
        return tuple(map(load_failover, entries))

    def slots(self) -> frozenset[tuple[str, int]]:
        start = self._prefix + "lock:"
        with self._pool.link() as link:
            keys = {key for batch in _scan(link, start) for key in batch}
        parts = (key.decode(errors="replace").removeprefix(start).partition(":") for key in keys)
        return frozenset((name, int(slot)) for slot, _, name in parts)

    def locks(self, slots: Iterable[tuple[str, int]] | None = None) -> tuple[HeldLock, ...]:
        wanted = sorted(self.slots() if slots is None else slots)
        with self._pool.link() as link:
            steps = (wanted[at : at + STEP] for at in range(0, len(wanted), STEP))
            return tuple(lock for step in steps for lock in _read(link, step, self._prefix))

    def lines(self) -> Mapping[str, int]:
        with self._pool.link() as link:
            (names,) = link.call(("HKEYS", self._prefix + "lines"))
            if not names:
                return {}
            counts = link.call(*(("LLEN", self._prefix.encode() + b"line:" + name) for name in names))
        return {name.decode(errors="replace"): count for name, count in zip(names, counts, strict=True)}

    def line(self, name: str, limit: int) -> tuple[Waiter, ...]:
        with self._pool.link() as link:
            (entries,) = link.call(("LRANGE", f"{self._prefix}line:{name}", 0, limit - 1))
        return tuple(map(read_waiter, entries))

    def release(self, name: str, tokens: Mapping[int, int], by: str) -> int:
        note = json.dumps({"schema": SCHEMA, "lock": name, "by": by}, separators=(",", ":")).removesuffix("}")
        seen = [part for pair in tokens.items() for part in pair]
        with self._pool.link() as link:
            freed: int = link.run_script("lock_break", name, note, HISTORY_LIMIT, HISTORY_TTL, *seen)
        return freed

    def releases(self, limit: int) -> tuple[Release, ...]:
        with self._pool.link() as link:
            (notes,) = link.call(("LRANGE", self._prefix + "releases", 0, limit - 1))
        return tuple(map(load_release, notes))


def parse_info(text: str) -> dict[str, str]:
    """An answer of ``INFO`` as fields and values."""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {field: value for field, colon, value in lines if colon}


def read_waiter(entry: bytes) -> Waiter:
    """An entry of a line; its form is frozen, see ``line.lua``."""
    kind, first, _, third = (part.decode(errors="replace") for part in _netstrings(entry, 4))
    if kind == "call":
        return Waiter(task=third, lease=first)
    return Waiter(task=third, queue=first)


def _netstrings(entry: bytes, count: int) -> Iterator[bytes]:
    at = 0
    for _ in range(count):
        colon = entry.index(b":", at)
        at = colon + 1 + int(entry[at:colon])
        yield entry[colon + 1 : at]


def _scan(link: Link, start: str) -> Iterator[list[bytes]]:
    pattern, cursor = _GLOB.sub(r"\\\1", start) + "*", b"0"
    while True:
        (answer,) = link.call(("SCAN", cursor, "MATCH", pattern, "COUNT", STEP))
        cursor, keys = answer
        yield keys
        if cursor == b"0":
            return


def _read(link: Link, slots: list[tuple[str, int]], prefix: str) -> Iterator[HeldLock]:
    keys = [f"{prefix}lock:{slot}:{name}" for name, slot in slots]
    fields = ("lease", "claim", "task", "token")
    answers = link.call(*(command for key in keys for command in (("HMGET", key, *fields), ("PTTL", key))))
    for (name, slot), record, left in zip(slots, answers[::2], answers[1::2], strict=True):
        if record[3] is None:
            continue  # free by now
        lease, claim, task, token = (part.decode(errors="replace") for part in record)
        ends = left / 1000 if left >= 0 else None
        # A token is the server's time in microseconds, or more only if its clock stepped back (rule 12).
        yield HeldLock(name, slot, Holder(lease, claim, task), int(token), ends, int(token) / 1e6)
