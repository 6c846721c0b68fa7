"""Attempts, in the Redis that is the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from celery_ha.attempts.base import Attempt, Attempts, Earlier, Started
from celery_ha.model import Ending, Settlement
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
        state, count = self._run("attempt_earlier", message)
        return Earlier(count, running=state == b"r", ended=state == b"e", harmless=state == b"g")

    def start(self, lease: str, attempt: Attempt, settle: Sequence[tuple[Settlement, float]] = ()) -> Started:
        what = json.dumps([attempt.message, attempt.task, attempt.queue])
        fields = (attempt.claim, attempt.message, what, int(attempt.once))
        return _ANSWER[self._run("attempt_start", lease, *fields, *_endings(settle))]

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


def _endings(settle: Sequence[tuple[Settlement, float]]) -> list[object]:
    args: list[object] = []
    for item, memory in settle:
        counts = item.ending is Ending.RELEASE and item.payload is not None
        args += [("R" if counts else _LETTER[item.ending]) + item.claim, int(memory)]
    return args
