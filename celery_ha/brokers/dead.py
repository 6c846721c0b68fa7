"""The dead letters on Redis: list, retry, drop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from celery_ha.brokers.redis import RedisBroker, read_claim
from celery_ha.envelope import afresh, task_id
from celery_ha.lua import Script
from celery_ha.model import Claim

#: Letters moved by one script: the server does nothing else meanwhile.
CHUNK = 200

RETRY, DROP = Script("celery_ha.brokers", "dead_retry"), Script("celery_ha.brokers", "dead_drop")
EXPIRE = Script("celery_ha.brokers", "dead_expire")


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up."""

    #: The delivery that ended here; its id is the letter's.
    claim: Claim
    #: Where it came from and goes back to.
    queue: str
    reason: str
    #: When, by the broker's clock.
    at: float


class DeadLetters:
    """What was given up, until somebody decides.

    Args:
        broker: where they are.

    Raises:
        StoreUnavailable: the broker could not be reached; a call may have happened.
    """

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker
        dead = broker.layout.dead
        self._keys = [dead, f"{dead}:why", f"{dead}:index"]

    def __len__(self) -> int:
        return int(self._broker._reached(lambda: self._broker.client.zcard(self._keys[2])))

    def __iter__(self) -> Iterator[DeadLetter]:
        """The newest first, read in pieces; one that is gone meanwhile is left out."""
        ids = self._broker._reached(lambda: self._broker.client.zrevrange(self._keys[2], 0, -1, withscores=True))
        for at in range(0, len(ids), CHUNK):
            yield from self._read(ids[at : at + CHUNK])

    def newest(self, limit: int) -> list[DeadLetter]:
        """The last ``limit`` of them, the newest first."""
        ids = self._broker._reached(lambda: self._broker.client.zrevrange(self._keys[2], 0, limit - 1, withscores=True))
        return [letter for at in range(0, len(ids), CHUNK) for letter in self._read(ids[at : at + CHUNK])]

    def find(self, wanted: str) -> DeadLetter | None:
        """The letter of this id, or the newest one of the task of this id."""
        score = self._broker._reached(lambda: self._broker.client.zscore(self._keys[2], wanted))
        if score is not None:
            return next(iter(self._read([(wanted, score)])), None)
        return next((letter for letter in self if task_id(letter.claim.payload) == wanted), None)

    def retry(self, letters: Iterable[DeadLetter]) -> int:
        """Put letters at the end of their queues, with no attempt counted, and ring the bells.

        Returns:
            How many moved: who else retried or dropped one meanwhile had it.

        **Failure:** each letter is in one place, whoever dies; repeating moves the rest.
        """
        names, moved, rest = self._broker.layout, 0, iter(letters)
        while chunk := list(islice(rest, CHUNK)):
            pairs = [part for letter in chunk for part in (letter.claim.id, afresh(letter.claim.payload))]
            moved += int(self._broker._run(RETRY, self._keys, [names.prefix, names.names, names.sep, *pairs]))
        return moved

    def drop(self, letters: Iterable[DeadLetter]) -> int:
        """Delete letters for good; returns how many were still there."""
        dropped, rest = 0, iter(letters)
        while chunk := list(islice(rest, CHUNK)):
            dropped += int(self._broker._run(DROP, self._keys, [letter.claim.id for letter in chunk]))
        return dropped

    def expire(self, age: float) -> int:
        """Delete letters that were given up more than ``age`` seconds ago, by the broker's clock; returns how many."""
        expired = 0
        while found := int(self._broker._run(EXPIRE, self._keys, [age, CHUNK])):
            expired += found
        return expired

    def _read(self, ids: Sequence[tuple[bytes | str, float]]) -> Iterator[DeadLetter]:
        names = [name.decode() if isinstance(name, bytes) else name for name, _ in ids]
        pipe = self._broker.client.pipeline(transaction=True)
        pipe.hmget(self._keys[0], names)
        pipe.hmget(self._keys[1], names)
        records, reasons = self._broker._reached(pipe.execute)
        for name, (_, at), record, reason in zip(names, ids, records, reasons, strict=True):
            if record is not None:
                claim = read_claim(name, record)
                queue = self._broker.layout.queue(claim.source)
                yield DeadLetter(claim, queue, (reason or b"").decode(errors="replace"), at)
