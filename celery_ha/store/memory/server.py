"""The memory that several :class:`~celery_ha.store.memory.MemoryStore` clients share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain

from celery_ha.model import FencedLease, Firing, Holder, Leader, Node, Recovered, Rings, Verdict

#: Seconds for which the fence of a recovered lease is still told apart from an unknown lease.
TOMBSTONE_TTL = 3600.0
#: Seconds for which the end of a claim is remembered; longer than any request waits in a socket.
ENDED_TTL = 600.0
#: How many finished recoveries are remembered.
HISTORY_LIMIT = 200


@dataclass
class HeldLock:
    """A lock that is held, or in trust for ``holder.task`` until ``until``."""

    holder: Holder
    token: int
    #: Seconds of trust its holder asked for.
    inherit: float
    #: It is gone then, by the store's clock: a trust (its holder has no lease) or ``max_hold`` is over. None: never.
    until: float | None = None
    #: In trust for a message that was parked: since when it had been, by the store's clock.
    since: float | None = None


@dataclass
class Waiter:
    """Somebody who stands in line for a lock: a caller, or a parked message."""

    holder: Holder
    inherit: float
    max_hold: float | None = None
    #: Puts the message at the front of its queue; None: a caller, who looks at :attr:`token`.
    wake: Callable[[], None] | None = None
    payload: bytes = b""
    token: int | None = None
    #: When a message came to the line, by the store's clock.
    since: float | None = None


@dataclass
class Line:
    """Who stands in line for a lock, first come, first served."""

    limit: int
    waiters: deque[Waiter] = field(default_factory=deque)


@dataclass
class HeldKey:
    """A key under which a message is under way, or about to be published."""

    task: str
    until: float
    published: bool = False


#: One of the places of a lock: its name and the place's number.
Slot = tuple[str, int]


@dataclass
class Memory:
    """Everything a wipe loses."""

    epoch: str = ""
    version: int = 0
    term: int = 0
    token: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    fenced: dict[str, FencedLease] = field(default_factory=dict)
    #: Leases in doubt, each with the time until which it is.
    doubts: dict[str, float] = field(default_factory=dict)
    #: Recovered and refused leases, each with the time until which the tombstone stands.
    gone: dict[str, float] = field(default_factory=dict)
    leader: Leader | None = None
    rings: Rings = field(default_factory=dict)
    #: Leases whose bell was rung and not heard yet.
    bells: set[str] = field(default_factory=set)
    history: deque[tuple[FencedLease, Recovered]] = field(default_factory=lambda: deque(maxlen=HISTORY_LIMIT))
    locks: dict[Slot, HeldLock] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    #: Until when each revoked task counts as such.
    revoked: dict[str, float] = field(default_factory=dict)
    uniques: dict[str, HeldKey] = field(default_factory=dict)
    #: Last firing by entry, and the claimed ones with their time, the last one first.
    firings: dict[str, Firing] = field(default_factory=dict)
    fired: deque[tuple[float, Firing]] = field(default_factory=lambda: deque(maxlen=HISTORY_LIMIT))
    #: Claims whose end was told, each with the time until which it is remembered; oldest first.
    ended: dict[str, float] = field(default_factory=dict)
    #: Until when no lock is granted (rule 12), and for how long such a time lasts.
    quiet_until: float = float("-inf")
    longest_ttl: float = 0.0


class MemoryServer:
    """A store in memory. All names it gives are counted, so that a simulation repeats exactly.

    Args:
        now: the store's clock, seconds; a simulation passes its own.
        watchable: False simulates a store that cannot tell which connections are there.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, *, watchable: bool = True) -> None:
        self.now = now
        self.watchable = watchable
        #: True: every call of every client fails, connections stay.
        self.down = False
        self.lock = threading.RLock()
        self.memory = Memory()
        self.connected: set[str] = set()
        self._runs = 1
        self._epochs = 0
        self._connections = 0

    @property
    def run(self) -> str:
        """Identity of this run of the server."""
        return f"run-{self._runs}"

    def wipe(self) -> None:
        """Lose all memory, as ``FLUSHALL`` does. Connections stay; the next lease opened starts a new epoch."""
        with self.lock:
            self.memory = Memory()

    def restart(self) -> None:
        """Restart with the memory intact: every connection drops and every session changes."""
        with self.lock:
            self._runs += 1
            self.connected.clear()
            self.begin_quiet_time()

    def connect(self) -> str:
        """Accept a connection and return its id."""
        self._connections += 1
        connection = str(self._connections)
        self.connected.add(connection)
        return connection

    def new_epoch(self) -> str:
        """Name of the memory that starts now."""
        self._epochs += 1
        return f"epoch-{self._epochs}"

    # What several ports share; each is called with the lock held.

    def is_open(self, lease: str) -> bool:
        """Whether the lease is open."""
        return lease in self.memory.counters

    def is_fenced(self, lease: str) -> bool:
        """Whether the lease was fenced, recovered or not, or refused before it ever opened."""
        return lease in self.memory.fenced or self.memory.gone.get(lease, float("-inf")) > self.now()

    def members_changed(self) -> None:
        """Raise the version and ring every node's bell."""
        self.memory.version += 1
        self.memory.bells.update(self.memory.counters)

    def forget_member(self, lease: str) -> Node:
        """Take a lease out of the open ones and vacate its office."""
        memory = self.memory
        del memory.counters[lease]
        memory.bells.discard(lease)
        memory.doubts.pop(lease, None)
        if memory.leader is not None and memory.leader.lease == lease:
            memory.leader = None
        return memory.nodes.pop(lease)

    def fence_member(self, lease: str, term: int, reason: str) -> None:
        """Move a lease from the open ones to the fenced ones."""
        node = self.forget_member(lease)
        self.memory.fenced[lease] = FencedLease(node=node, term=term, reason=reason, at=self.now())
        self.members_changed()

    def as_judged(self, verdict: Verdict) -> bool:
        """Whether a lease still shows the evidence it was judged by."""
        node = self.memory.nodes.get(verdict.lease)
        return (
            node is not None
            and self.memory.counters[verdict.lease] == verdict.counter
            and node.connections == verdict.connections
        )

    def pour(self) -> None:
        """Put parked messages back to the front of their queues, in order: nobody is left who would wake them."""
        lines, self.memory.lines = self.memory.lines, {}
        for line in lines.values():
            for waiter in reversed(line.waiters):
                if waiter.wake is not None:
                    waiter.wake()

    def present(self) -> frozenset[str]:
        """The registered connections that are there."""
        registered = chain.from_iterable(node.connections for node in self.memory.nodes.values())
        return frozenset(self.connected.intersection(registered))

    def register_connections(self, lease: str, connections: tuple[str, ...]) -> None:
        """Replace the connections by which a lease is watched."""
        if self.memory.nodes[lease].connections == connections:
            return
        self.memory.nodes[lease] = replace(self.memory.nodes[lease], connections=connections)

    def note_ended(self, claims: tuple[str, ...]) -> None:
        """Remember that these claims are over, and forget what is past."""
        ended, now = self.memory.ended, self.now()
        while ended and next(iter(ended.values())) <= now:
            del ended[next(iter(ended))]
        for claim in claims:
            ended.pop(claim, None)
            ended[claim] = now + ENDED_TTL

    def has_ended(self, claim: str) -> bool:
        """Whether the end of the claim was told."""
        return self.memory.ended.get(claim, float("-inf")) > self.now()

    def begin_quiet_time(self) -> None:
        """Grant no lock for a whole TTL: who holds what is known only when leases had time to say so."""
        self.memory.quiet_until = self.now() + self.memory.longest_ttl

    def next_token(self) -> int:
        """The next token: grows even when the clock steps back (rule 12)."""
        self.memory.token = max(self.memory.token + 1, int(self.now() * 1_000_000))
        return self.memory.token
