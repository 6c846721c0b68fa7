"""Attempts, in the memory that is the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from celery_ha.attempts.base import Attempt, Attempts, Earlier, Started
from celery_ha.model import Ending, Settlement
from celery_ha.store.memory.server import MemoryServer
from celery_ha.store.memory.store import MemoryStore


@dataclass(frozen=True)
class _Try:
    """What is known of a message: who tries it, or how often it was tried, or that it has ended."""

    count: int = 0
    lease: str = ""
    claim: str = ""
    #: By the store's clock; None: it has not.
    ended_until: float | None = None
    harmless: bool = False


@dataclass
class AttemptsServer:
    """What is shared by all clients."""

    tries: dict[str, _Try] = field(default_factory=dict)
    #: Attempts not known to be over, by lease and claim.
    listed: dict[str, dict[str, Attempt]] = field(default_factory=dict)


class MemoryAttempts(Attempts):
    """See :class:`~celery_ha.attempts.base.Attempts`.

    Args:
        client: the store.
        shared: beside the store's own memory.
    """

    def __init__(self, client: MemoryStore, shared: AttemptsServer) -> None:
        self._client = client
        self._tries = shared.tries
        self._listed = shared.listed

    def earlier(self, message: str) -> Earlier:
        with self._client.call() as server:
            found = self._now(server, message)
            ended = found.ended_until is not None
            return Earlier(found.count, found.lease, ended=ended, harmless=found.harmless)

    def start(self, lease: str, attempt: Attempt, settle: Sequence[tuple[Settlement, float]] = ()) -> Started:
        with self._client.call() as server:
            if lease not in server.memory.counters:
                return Started.CLOSED
            self._end_all(server, lease, settle)
            found = self._now(server, attempt.message)
            if found.claim == attempt.claim:
                return Started.YES
            if found.lease or (found.ended_until is not None and attempt.once):
                return Started.NOT_NOW
            self._tries[attempt.message] = _Try(found.count, lease, attempt.claim)
            self._listed.setdefault(lease, {})[attempt.claim] = attempt
            return Started.YES

    def settle(self, lease: str, settle: Sequence[tuple[Settlement, float]]) -> bool:
        with self._client.call() as server:
            if lease not in server.memory.counters:
                return False
            self._end_all(server, lease, settle)
            return True

    def under(self, lease: str) -> list[Attempt]:
        with self._client.call():
            return list(self._listed.get(lease, {}).values())

    def holds(self, lease: str, claim: str) -> bool:
        with self._client.call() as server:
            return lease in server.memory.counters and claim in self._listed.get(lease, {})

    def interrupted(self, lease: str, claims: Iterable[str]) -> int:
        with self._client.call() as server:
            if lease in server.memory.counters:
                return 0
            before = len(self._listed.get(lease, {}))
            items = [Settlement(claim, Ending.RELEASE, payload=b"") for claim in claims]
            self._end_all(server, lease, [(item, 0.0) for item in items])
            return before - len(self._listed.get(lease, {}))

    def forget(self, lease: str) -> bool:
        return not self.under(lease)

    def _now(self, server: MemoryServer, message: str) -> _Try:
        found = self._tries.get(message, _Try())
        if found.ended_until is not None and found.ended_until <= server.now():
            return _Try()
        if found.lease and found.lease not in server.memory.counters:
            return _Try(found.count + 1)
        return found

    def _end_all(self, server: MemoryServer, lease: str, settle: Sequence[tuple[Settlement, float]]) -> None:
        for item, memory in settle:
            attempt = self._listed.get(lease, {}).pop(item.claim, None)
            message = "" if attempt is None else attempt.message
            if attempt is None or self._tries[message].claim != item.claim:
                continue
            if item.ending is Ending.ACK:
                self._tries[message] = _Try(ended_until=server.now() + memory)
            else:
                counts = item.ending is Ending.RELEASE and item.payload is not None
                found = self._tries[message]
                lived = lease in server.memory.counters
                self._tries[message] = replace(found, count=found.count + counts, lease="", claim="", harmless=lived)
