"""The values that every part of celery_ha passes around: immutable, no I/O.

Times are seconds. ``now`` and everything called a monotonic time come from the local
monotonic clock of the process that holds the value; they mean nothing anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

#: A queue that nobody consumes: a beat names it, to be a node that others judge and that judges.
BEAT_QUEUE = "@beat"

#: Who owns each shard, in the order of the shards, by sharded queue; names of nodes.
Rings = Mapping[str, tuple[str, ...]]

#: Version of every record celery_ha writes; a reader refuses one it does not know.
SCHEMA = 1


@dataclass(frozen=True)
class Node:
    """One incarnation of a worker, as registered under its lease."""

    #: Random id of the incarnation, never reused.
    lease: str
    #: The Celery node name, ``w1@host``.
    name: str
    #: Share of shards it should get: its concurrency; 0 while it starts, has lost the broker, or leaves.
    weight: int = 1
    #: Base names of the queues it consumes.
    queues: tuple[str, ...] = ()
    #: Server-side ids of the connections whose absence means the process is gone;
    #: empty where the store cannot watch connections, then only the TTL judges.
    connections: tuple[str, ...] = ()
    #: When the lease was opened, by the store's clock; orders the deputies.
    opened: float = 0.0
    #: Seconds after which a renewal counter that stands still means death.
    ttl: float = 10.0
    #: How many shards it knows of each sharded queue it consumes, when its lease is opened.
    shards: tuple[tuple[str, int], ...] = ()
    #: It drains: it never takes any shards again, and its name may be taken.
    leaving: bool = False

    @property
    def runs_tasks(self) -> bool:
        """Whether it consumes any queue of tasks; a process that only takes locks, and a beat, do not."""
        return any(queue != BEAT_QUEUE for queue in self.queues)


@dataclass(frozen=True)
class Leader:
    """The elected judge."""

    lease: str
    #: Grows with every election.
    term: int
    #: Rounds of judging finished in this term: what keeps leadership alive.
    rounds: int = 0


class LeaseState(Enum):
    """What a renewal found."""

    OPEN = "open"
    #: Somebody fenced it: everything it held moves on.
    FENCED = "fenced"
    #: The store does not know it and has no fence for it either.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Renewal:
    """The answer to one renewal."""

    state: LeaseState
    #: The store's memory: a different value means it was wiped since.
    epoch: str = ""
    #: Grows with every change of membership.
    version: int = 0
    leader: Leader | None = None


@dataclass(frozen=True)
class FencedLease:
    """A lease that was fenced and whose recovery is not finished."""

    node: Node
    term: int
    #: ``renewals stood still`` or ``connections gone``; shown to people.
    reason: str
    #: When, by the store's clock.
    at: float


@dataclass(frozen=True)
class Look:
    """Everything an observer saw in one look at the store."""

    #: Local monotonic times just before and just after the look.
    started: float
    ended: float
    #: Identity of the server run and of the observer's own connection to it.
    session: str
    #: Renewal counter by lease.
    counters: Mapping[str, int]
    #: Registered node by lease.
    nodes: Mapping[str, Node]
    #: Ids of registered connections that are there; None: the store cannot say.
    present: frozenset[str] | None
    leader: Leader | None
    #: Fenced leases that still wait for recovery.
    fenced: tuple[FencedLease, ...] = ()
    version: int = 0
    #: Leases whose connection the broker has given up too, as somebody has told lately.
    doubted: frozenset[str] = frozenset()
    #: The last rings that a leader wrote down, of this version of the membership or of an earlier one.
    rings: Rings = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A lease judged dead, with the evidence the fence must still find."""

    lease: str
    reason: str
    counter: int
    connections: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """A message handed to a lease and recorded as in flight by it."""

    #: ``<lease>.<number>``; the number grows with every claim made on the broker.
    id: str
    #: Broker key of the list it came from (a queue and a priority).
    source: str
    #: The message exactly as it stood in the queue.
    payload: bytes
    #: True once the attempt was marked started.
    started: bool = False

    @property
    def lease(self) -> str:
        return self.id.rpartition(".")[0]

    @property
    def number(self) -> int:
        return int(self.id.rpartition(".")[2])


class Ending(Enum):
    """How a claim can end, or (``DEFER``) go back to waiting in its holder's hands."""

    ACK = "ack"
    #: Still held, but the attempt did not start after all (a rate limit, a full pool).
    DEFER = "defer"
    #: Back to the front of its queue.
    RELEASE = "release"
    #: To the dead letters.
    DEAD = "dead"


#: Seconds for which a node is in doubt whose connection the broker has given up: it has made another one by then.
DOUBT = 5.0


class Readable(Protocol):
    """What a loop can wait for."""

    def fileno(self) -> int:
        """Its descriptor; below 0 once it is closed."""


@dataclass(frozen=True)
class Settlement:
    """One claim's end, resent until the broker confirms it; ending twice is harmless."""

    claim: str
    ending: Ending
    #: Why, for a dead letter.
    reason: str = ""
    #: What goes back instead of the original payload (a raised delivery count).
    payload: bytes | None = None


@dataclass(frozen=True)
class Batch:
    """The answer to one claim request."""

    claims: tuple[Claim, ...] = ()
    #: Queues that may hold more.
    more: tuple[str, ...] = ()
    #: False: the lease is not open on the broker; nothing was claimed or settled.
    open: bool = True


@dataclass(frozen=True)
class Holder:
    """Who holds a lock (rule 4 of the design): a claim of a task under a lease."""

    lease: str
    claim: str
    task: str


@dataclass(frozen=True)
class Grant:
    """The answer to a request for a lock."""

    #: None: busy.
    token: int | None
    #: Who holds it when it is busy.
    holder: Holder | None = None
    #: Same claim asked again: the token it already had.
    again: bool = False
    #: Seconds for which the task's message was parked in the lock's line before; None: it was not.
    in_line: float | None = None
    #: Local monotonic time at which its ``max_hold`` is over, rather too early than too late; None: it has none.
    until: float | None = None


@dataclass(frozen=True)
class Reservation:
    """Who has the key of a unique task."""

    #: The task id its message has, or will have.
    task: str
    #: False: its publisher has not come back yet, and may have died.
    published: bool = False


@dataclass(frozen=True)
class Term:
    """One grant of the office of the beat: a lock, and who holds it since when."""

    office: str
    holder: Holder
    #: The lock's token: no two terms have the same.
    token: int


@dataclass(frozen=True)
class Firing:
    """The last firing of an entry of a schedule, as all beats share it."""

    entry: str
    #: Running number of the entry's firings; 0: it was only seen so far.
    number: int
    #: When it was due, seconds since the epoch; with number 0, since when the entry is waited for. The next
    #: firing is computed from it, so it is what Celery calls ``last_run_at``.
    due: float
    #: False: claimed, and not yet known to be with the broker.
    sent: bool
    #: Token of the term in which it was claimed.
    term: int
    #: Name of the beat that claimed it.
    by: str = ""
    #: When the one after it will be due, as far as could be told then.
    next: float | None = None


@dataclass(frozen=True)
class Beats:
    """What the store knows about the beats."""

    #: Last firing by entry.
    firings: Mapping[str, Firing] = field(default_factory=dict)
    #: Lease of the beat that holds the office.
    leader: str | None = None


class Parked(Enum):
    """What became of a message that should wait in line for a lock."""

    #: It waits there, or has had its turn already.
    PARKED = "parked"
    #: The lock is its own, or kept for it: it may try again at once.
    DUE = "due"
    #: It is not in flight under an open lease any more.
    GONE = "gone"


@dataclass(frozen=True)
class Recovered:
    """What the recovery of one lease moved."""

    lease: str
    requeued: int = 0
    #: Of those, attempts that had started and so will run again.
    restarted: int = 0
    locks: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failover:
    """A finished recovery, as the history has it."""

    fenced: FencedLease
    recovered: Recovered
    #: When it was finished, by the store's clock; None: written by a version that did not say.
    done: float | None


@dataclass(frozen=True)
class HeldLock:
    """One slot of a lock that is not free."""

    name: str
    slot: int
    #: Who has it; without a lease while it is in trust for the task (rule 8).
    holder: Holder
    token: int
    #: Seconds until it is free by itself, by ``max_hold`` or at the end of the trust; None: never.
    left: float | None
    #: When it was granted, by the store's clock; None: the store does not know.
    since: float | None = None


@dataclass(frozen=True)
class Release:
    """A lock that somebody took from its holders."""

    name: str
    #: Who did it, as far as their machine knew.
    by: str
    #: How many slots.
    freed: int
    #: When, by the store's clock.
    at: float


@dataclass(frozen=True)
class Waiter:
    """Somebody in line for a lock."""

    task: str
    #: The lease of a caller that waits in its slot; empty for a parked message.
    lease: str = ""
    #: The queue that a parked message goes back to, with the broker's key prefix; empty for a caller.
    queue: str = ""
