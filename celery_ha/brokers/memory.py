"""The broker port in memory: a real broker within one process, for tests and the simulation.

A :class:`MemoryBrokerServer` plays the server, each :class:`MemoryBroker` a client of it. The
server is not thread-safe by itself; each client call holds its mutex, so every call is one atomic
step, like a script on Redis.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from celery_ha.brokers.base import Broker
from celery_ha.brokers.layout import PUBLISH_MEMORY, Layout
from celery_ha.model import Batch, Claim, Ending, Settlement

#: How a message shows that it waits for no ETA, and that it was interrupted: see ``claim.lua``.
_NO_ETA, _AGAIN = b'"eta": null', b'"redelivered": true'


@dataclass
class MemoryBrokerServer:
    """What a broker server remembers.

    Args:
        now: the server's clock, in seconds; publish ids expire by it, claims are numbered by it.
    """

    now: Callable[[], float]
    layout: Layout = field(default_factory=Layout)
    #: Messages by source; the next one to be claimed is first.
    queues: dict[str, deque[bytes]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    #: Tombstones: leases that never open again.
    fenced: set[str] = field(default_factory=set)
    #: Claims in flight by lease and claim id, in claim order; a lease has an entry from its join to
    #: its leave or :meth:`forget`.
    flights: dict[str, dict[str, Claim]] = field(default_factory=dict)
    dead: dict[str, tuple[Claim, str]] = field(default_factory=dict)
    #: When each publish id came, oldest first.
    published: dict[str, float] = field(default_factory=dict)
    #: The largest number of shards that each queue ever had.
    shards: dict[str, int] = field(default_factory=dict)
    #: Number of the last claim.
    last: int = 0
    mutex: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        #: Sources by queue, the highest priority first.
        self._sources: dict[str, tuple[str, ...]] = {}

    def queue(self, source: str) -> deque[bytes]:
        return self.queues.setdefault(source, deque())

    def sources(self, queue: str) -> tuple[str, ...]:
        """The lists of a queue, the one to be claimed from first at the front."""
        found = self._sources.get(queue)
        if found is None:
            found = self._sources[queue] = tuple(self.layout.source(queue, step) for step in self.layout.steps)
        return found

    def waiting(self, queue: str) -> list[bytes]:
        """All messages of a queue, the next one to be claimed first."""
        return [payload for source in self.sources(queue) for payload in self.queues.get(source, ())]

    def any_waiting(self, queue: str) -> bool:
        """Whether the queue holds a message."""
        return any(map(self.queues.get, self.sources(queue)))

    def pop(self, lease: str, source: str, *, started: bool) -> Claim:
        """Move the first message of a source to a lease; marked only if it is new and waits for no ETA."""
        payload = self.queues[source].popleft()
        self.last = max(self.last + 1, int(self.now() * 1e6))
        claim = Claim(f"{lease}.{self.last}", source, payload, started and _NO_ETA in payload and _AGAIN not in payload)
        self.flights[lease][claim.id] = claim
        return claim

    def end(self, lease: str, settlement: Settlement) -> bool:
        """Apply one settlement; a claim that is not in flight is skipped."""
        flight = self.flights[lease]
        claim = flight.get(settlement.claim)
        if claim is None:
            return False
        if settlement.ending is Ending.DEFER:
            flight[claim.id] = replace(claim, started=False)
            return True
        del flight[claim.id]
        if settlement.ending is Ending.RELEASE:
            payload = claim.payload if settlement.payload is None else settlement.payload
            self.queue(claim.source).appendleft(payload)
        elif settlement.ending is Ending.DEAD:
            self.dead[claim.id] = (claim, settlement.reason)
        return True

    def put_back(self, claim: Claim, payload: bytes) -> bool:
        """Move a claim of a lease that is not open to the front of its queue, if it is still in flight."""
        if claim.lease in self.open:
            return False
        record = self.flights.get(claim.lease, {}).pop(claim.id, None)
        if record is None:
            return False
        self.queue(record.source).appendleft(payload)
        return True

    def shut(self, lease: str) -> None:
        """Refuse a lease from now on."""
        self.fenced.add(lease)
        self.open.discard(lease)


class MemoryBroker(Broker):
    """One client of a :class:`MemoryBrokerServer`."""

    def __init__(self, server: MemoryBrokerServer) -> None:
        self.server = server

    def join(self, lease: str) -> bool:
        server = self.server
        with server.mutex:
            if lease in server.fenced:
                return False
            server.open.add(lease)
            server.flights.setdefault(lease, {})
            return True

    def publish(self, queue: str, payload: bytes, *, priority: int = 0, publish_id: str | None = None) -> bool:
        server = self.server
        with server.mutex:
            if publish_id is not None and self._seen(publish_id):
                return False
            server.queue(server.layout.source(queue, priority)).append(payload)
            return True

    def claim(
        self, lease: str, queues: Sequence[str], *, limit: int, slots: int, settle: Sequence[Settlement] = ()
    ) -> Batch:
        server = self.server
        with server.mutex:
            if not self.settle(lease, settle):
                return Batch(open=False)
            claims: list[Claim] = []
            for step in zip(*map(server.sources, queues), strict=True):
                for source in step:
                    while server.queues.get(source) and len(claims) < limit:
                        claims.append(server.pop(lease, source, started=len(claims) < slots))
            return Batch(tuple(claims), tuple(queue for queue in queues if server.any_waiting(queue)))

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        server = self.server
        with server.mutex:
            if not self.settle(lease, settle) or claim not in server.flights[lease]:
                return False
            flight = server.flights[lease]
            flight[claim] = replace(flight[claim], started=True)
            return True

    def settle(self, lease: str, settle: Sequence[Settlement]) -> bool:
        server = self.server
        with server.mutex:
            if lease not in server.open:
                return False
            for settlement in settle:
                server.end(lease, settlement)
            return True

    def held(self, lease: str) -> dict[str, bool]:
        with self.server.mutex:
            return {claim.id: claim.started for claim in self.server.flights.get(lease, {}).values()}

    def leave(self, lease: str) -> bool:
        server = self.server
        with server.mutex:
            if server.flights.get(lease):
                return False
            server.flights.pop(lease, None)
            server.open.discard(lease)
            return True

    def fence(self, lease: str) -> None:
        with self.server.mutex:
            self.server.shut(lease)

    def in_flight(self, lease: str) -> list[Claim]:
        with self.server.mutex:
            return sorted(self.server.flights.get(lease, {}).values(), key=_number)

    def requeue(self, claims: Iterable[tuple[Claim, bytes]]) -> int:
        newest_first = sorted(claims, key=lambda item: item[0].number, reverse=True)
        with self.server.mutex:
            return sum(self.server.put_back(claim, payload) for claim, payload in newest_first)

    def forget(self, lease: str) -> bool:
        server = self.server
        with server.mutex:
            if server.flights.get(lease):
                return False
            server.flights.pop(lease, None)
            return True

    def strangers(self, known: frozenset[str]) -> frozenset[str]:
        with self.server.mutex:
            return frozenset(self.server.flights) - known

    def widest(self, queue: str, shards: int) -> int:
        """The largest number of shards ever used for a queue, this one included (rule 16)."""
        with self.server.mutex:
            found = self.server.shards[queue] = max(shards, self.server.shards.get(queue, 0))
            return found

    def _seen(self, publish_id: str) -> bool:
        """Whether this id came before, in the last ten minutes; remembers it (rule 14).

        Not only a producer's last id: a request that was given up may arrive after the one that
        followed its repetition. Nor everything below it: two requests may overtake each other.
        """
        known, now = self.server.published, self.server.now()
        while known and next(iter(known.values())) <= now - PUBLISH_MEMORY:
            del known[next(iter(known))]
        if publish_id in known:
            return True
        known[publish_id] = now
        return False


def _number(claim: Claim) -> int:
    return claim.number
