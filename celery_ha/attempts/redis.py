"""Attempts, in the Redis that is the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from celery_ha.attempts.base import Attempt, Attempts, Earlier, Question, Started
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Ending, Readable, Settlement
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.pool import FRESH, LinkPool
from celery_ha.store.redis.store import RedisStore

_LETTER = {Ending.ACK: "a", Ending.RELEASE: "r", Ending.DEFER: "u"}
_ANSWER = {1: Started.YES, 0: Started.CLOSED, -1: Started.NOT_NOW}


class RedisAttempts(Attempts):
    """See :class:`~celery_ha.attempts.base.Attempts`.

    Args:
        store: the store.
    """

    def __init__(self, store: RedisStore) -> None:
        self._pool = store.pool

    def earlier(self, message: str) -> Earlier:
        state, count, lease = self._run("attempt_earlier", message)
        return Earlier(count, lease.decode(), ended=state == b"e", harmless=state == b"g")

    def start(self, lease: str, attempt: Attempt, settle: Sequence[tuple[Settlement, float]] = ()) -> Started:
        return _answers(self._run("attempt_start", *_starts(lease, [attempt], settle)))[0]

    def question(self) -> Question:
        return RedisQuestion(self._pool)

    def settle(self, lease: str, settle: Sequence[tuple[Settlement, float]]) -> bool:
        return bool(self._run("attempt_settle", lease, *_endings(settle)))

    def under(self, lease: str) -> list[Attempt]:
        with self._pool.link() as link:
            (listed,) = link.call(("HGETALL", f"{link.prefix}attempts:{lease}"))
        return [Attempt(claim.decode(), *json.loads(what)) for claim, what in zip(*[iter(listed)] * 2, strict=True)]

    def holds(self, lease: str, claim: str) -> bool:
        with self._pool.link() as link:
            at = link.prefix
            return all(link.call(("HEXISTS", f"{at}leases", lease), ("HEXISTS", f"{at}attempts:{lease}", claim)))

    def interrupted(self, lease: str, claims: Iterable[str]) -> int:
        return int(self._run("attempt_interrupted", lease, *claims))

    def forget(self, lease: str) -> bool:
        with self._pool.link() as link:
            return not link.call(("HLEN", f"{link.prefix}attempts:{lease}"))[0]  # Redis drops what is empty

    def _run(self, script: str, *arguments: object) -> Any:
        with self._pool.link() as link:
            return link.run_script(script, *arguments)


class RedisQuestion(Question):
    """See :class:`~celery_ha.attempts.base.Question`; one connection is its own while an answer is under way.

    Args:
        pool: of the store.
    """

    def __init__(self, pool: LinkPool) -> None:
        self._pool = pool
        self._link: Link | None = None
        self._rests_since = 0.0

    def ask(self, lease: str, attempts: Sequence[Attempt], settle: Sequence[tuple[Settlement, float]]) -> Readable:
        link = self._link = self._link or self._pool.make()
        if monotonic() - self._rests_since > FRESH:
            link.drop_if_closed()
        return link.ask_script("attempt_start", *_starts(lease, attempts, settle))

    def answer(self) -> list[Started]:
        if self._link is None:
            raise StoreUnavailable("nothing was asked")
        reply = self._link.read_script()
        self._rests_since = monotonic()
        return _answers(reply)

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _starts(lease: str, attempts: Sequence[Attempt], settle: Sequence[tuple[Settlement, float]]) -> list[object]:
    args: list[object] = [lease, len(attempts)]
    for attempt in attempts:
        what = json.dumps([attempt.message, attempt.task, attempt.queue])
        args += (attempt.claim, attempt.message, what, int(attempt.once))
    return args + _endings(settle)


def _answers(reply: list[int]) -> list[Started]:
    return [_ANSWER[found] for found in reply]


def _endings(settle: Sequence[tuple[Settlement, float]]) -> list[object]:
    args: list[object] = []
    for item, memory in settle:
        counts = item.ending is Ending.RELEASE and item.payload is not None
        args += [("R" if counts else _LETTER[item.ending]) + item.claim, int(memory)]
    return args
