"""Ports to the store: where leases, leadership and locks live.

Four small ports, because four different parts of the design use them. An adapter gives all
four (see :class:`Store`). Every write names its condition and returns whether it happened; a
call that cannot reach the store raises :class:`~celery_ha.errors.StoreUnavailable`, after which
it may or may not have happened: every one of them can be repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import inf

from celery_ha.model import (
    Beats,
    Firing,
    Grant,
    Holder,
    Look,
    Node,
    Parked,
    Recovered,
    Renewal,
    Reservation,
    Term,
    Verdict,
)
from celery_ha.store.survey import Survey


class LeaseStore(ABC):
    """What a node does about its own lease."""

    @property
    def notice(self) -> float:
        """Seconds without a sign of life after which the store itself takes this process for gone.

        Trust must be over by then, however long the lease's TTL is. Infinite where only a closed
        connection tells: a process that is still there keeps its connections.
        """
        return inf

    @abstractmethod
    def open(self, node: Node) -> str:
        """Register a node under its new lease and return the store's epoch.

        The adapter fills in ``connections`` and ``opened``. A predecessor of the same name is left to the
        leader. Opening the same lease again replaces its node (re-assertion
        after a store that lost its memory); a fenced lease is refused with
        :class:`~celery_ha.errors.Fenced`.

        **Failure:** dying right after leaves an open lease that holds nothing; the leader fences it.
        """

    @abstractmethod
    def renew(self, lease: str) -> Renewal:
        """Move the lease's renewal counter on, if it is open.

        If the connection was re-established since the last call, registers the new connection ids
        in the same step, so that the watch never looks for ids that are gone for a good reason.
        """

    @abstractmethod
    def update(self, lease: str, *, weight: int | None = None, queues: tuple[str, ...] | None = None) -> bool:
        """Change what a node offers, if its lease is open; a change is told to every node."""

    @abstractmethod
    def close(self, lease: str, *, clean: bool) -> bool:
        """Say goodbye. ``clean``: the lease holds nothing and is deleted.

        Rule 7: otherwise it is fenced by itself and waits for recovery like a death; so is a lease
        that closes cleanly but still holds locks. Returns True if the lease was ended the way that was
        asked for; False if it was not open, or clean was asked for and it had to be fenced.
        """

    @abstractmethod
    def wait(self, lease: str, timeout: float) -> bool:
        """Sleep until a change of membership rings this node's own bell, at most ``timeout`` seconds."""


class Court(ABC):
    """What observers, deputies and the leader do about all the others."""

    @abstractmethod
    def look(self) -> Look:
        """See all leases, the leader, the unfinished recoveries and the registered connections that are there."""

    @abstractmethod
    def elect(self, lease: str) -> int | None:
        """Become leader if the office is vacant (no record, or its holder's lease is not open).

        Returns the new term, or None if somebody holds the office or ``lease`` is not open.
        """

    @abstractmethod
    def depose(self, lease: str, verdict: Verdict, *, term: int, rounds: int, fence: bool) -> int | None:
        """Take the office from a leader, in one step, if it still looks as it was judged.

        ``fence``: the leader's lease is judged dead (``verdict``) and fenced in the same step
        (rule 10). Otherwise only its judging stood still (``rounds`` unchanged): it loses the office
        and keeps its lease. Returns the new term or None.
        """

    @abstractmethod
    def finish_round(self, lease: str, term: int) -> bool:
        """Renew leadership: a round of judging is done. False: deposed."""

    @abstractmethod
    def fence(self, term: int, by: str, verdict: Verdict) -> bool:
        """Refuse every later write of a lease.

        Only if ``by`` still leads in ``term`` and counter and connections are those judged. The lease
        moves from the open ones to the fenced ones; membership changes and every node's bell rings.
        **Failure:** dying right after leaves the fence in the store; the next leader's look finds it
        and recovers.
        """

    @abstractmethod
    def refuse(self, term: int, by: str, lease: str) -> bool:
        """Refuse a stranger for good: a lease that the broker knows and that is not open here (rule 6).

        One step, only if ``by`` still leads in ``term``: a lease that opened in time is left alone, one
        that did not finds itself :class:`~celery_ha.errors.Fenced` when it opens. Returns whether it is
        refused from now on, by this call or since an earlier one. The tombstone stands for an hour; a
        store that loses its memory forgets it, as it forgets every fence.
        **Failure:** dying right after leaves a lease that opens no more; what it holds stays on the
        broker, where the next leader finds the stranger again.
        """

    @abstractmethod
    def recovered(self, result: Recovered) -> bool:
        """Recovery of a fenced lease is finished: forget it, keep a bounded history entry with a TTL.

        False if the lease is not fenced, or still has locks that were not settled. For an hour a
        tombstone tells a zombie that it was fenced.
        """


class LockStore(ABC):
    """Locks that belong to a lease, with tokens that strictly grow."""

    @abstractmethod
    def acquire(
        self,
        name: str,
        holder: Holder,
        *,
        inherit: float,
        limit: int = 1,
        max_hold: float | None = None,
        wait: float = 0.0,
    ) -> Grant:
        """Grant the lock if it is free, ours already, or held in trust for this task.

        Args:
            name: any characters, at most 1 KB as UTF-8.
            holder: who asks.
            inherit: seconds for which it is kept for the holder's task if the holder dies (rule 8).
            limit: how many may hold it at a time; all who ask must say the same.
            max_hold: seconds after which it is free, whatever the holder does; None: never.
            wait: seconds to stand in line for it; those who stand there are served in the order they came.

        Returns:
            The grant; busy after ``wait`` seconds, or as soon as nothing will be granted any more because
            the lease is fenced or the claim over.

        Raises:
            StoreUnavailable: the store did not answer, not within ``wait`` seconds either; the lock may have
                been granted, now or later, until :meth:`ended` is told of the claim.

        Refused (busy) when the holder's lease is not open, and without naming a holder when :meth:`ended`
        was told of its claim: a request may arrive after its claim is over. Same holder: same token. The same task
        under another claim takes over only if the holder's claim has ended (rule 4); a lock in trust
        (rule 8) goes to its own task at once and to anybody after ``inherit`` seconds.
        Token = max(previous + 1, server time in microseconds) (rule 12). After a new server run, or
        when a lease re-asserts itself after a loss of memory, nothing new is granted for a TTL: busy,
        without a holder.

        A free lock that others stand in line for goes to the first of them, also if somebody else asks
        first (rule 9). Whatever frees a lock hands it on in the same step: a caller that waits is
        granted it, a parked message goes to the front of its queue with the lock in trust for its task.
        """

    @abstractmethod
    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        """Free the lock if this holder has it with this token, and hand it on.

        Returns:
            Whether it had it; None: its lease is not open, so somebody else may have had it at any time since.
        """

    @abstractmethod
    def holds(self, name: str, holder: Holder, token: int) -> bool:
        """Whether this holder has the lock with this token and its lease is open."""

    @abstractmethod
    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        """Free the locks of claims that ended (rule 5); returns how many.

        Only claims of an open lease: those of a fenced one are settled. ``tasks``: ids of tasks that
        will not come back (dropped or dead-lettered); what is in trust for them is freed (rule 8).
        Each claim is remembered for ten minutes: a request for a lock that its caller gave up, but that
        the server still reads, must not take a lock that nobody would free.
        **Failure:** dying before leaves the locks to the settlement of the lease; repeating is harmless.
        """

    @abstractmethod
    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        """Settle the locks of a fenced lease (rule 8); returns how many there were.

        ``restarted``: claim id -> task id of what was requeued. Their locks are held in trust for the
        task, for the ``inherit`` seconds asked for when they were acquired; all others are freed.
        Nothing happens while the lease is open.
        """

    @abstractmethod
    def waiting(self, name: str) -> int:
        """How many stand in line for a lock."""

    @abstractmethod
    def sweep(self) -> int:
        """Hand on locks that became free with nobody there to do it: ``max_hold`` or a trust was over (rule 9).

        Returns how many; repeating is harmless. A few hundred locks at a time.
        """


class Parking(ABC):
    """Where a message waits for its lock, instead of in a worker. Only where store and broker are one server."""

    @abstractmethod
    def park(self, name: str, holder: Holder, *, limit: int, inherit: float) -> Parked:
        """Move a claimed message to the end of the lock's line, in one step; its turn may come in the same step.

        Args:
            name: the lock.
            holder: the attempt that found it busy; its claim's other locks are freed (rule 5).
            limit: as asked for.
            inherit: seconds for which the lock is kept for the message's task once it is its turn.

        Raises:
            StoreUnavailable: no answer; the message may have moved, and is then known to the broker
                under this claim no more.

        **Failure:** dying before leaves the message in flight, dying after leaves it in the line: in one
        place, whoever dies (G1). It is not counted as an attempt.
        """


class Uniques(ABC):
    """Keys under which at most one message is under way. Every one has an expiry: nothing is blocked for ever."""

    @abstractmethod
    def claim_key(self, key: str, task: str, ttl: float) -> Reservation:
        """Reserve a key for a task id, unless another has it.

        Args:
            key: at most 1 KB as UTF-8.
            task: the id to publish under.
            ttl: seconds after which it is free again; a key that is this task's already is kept at least so long.

        Returns:
            Who has it now, ``task`` or another.

        **Failure:** dying right after leaves a reservation that is not published, and free after ``ttl``.
        """

    @abstractmethod
    def keep_key(self, key: str, task: str, ttl: float) -> bool:
        """Note that the message is published and keep its key for ``ttl`` seconds, if it still is this task's.

        A key that was freed meanwhile stays free: the task may have ended before its publisher went on.
        """

    @abstractmethod
    def free_key(self, key: str, task: str) -> bool:
        """Free a key if it is this task's; whoever comes late frees nothing of another's."""


class Revocations(ABC):
    """Ids of tasks that must not run, for workers that were not there when it was said (rule 19)."""

    @abstractmethod
    def remember(self, tasks: Sequence[str], ttl: float) -> None:
        """Remember them for ``ttl`` seconds; repeating makes it longer.

        **Failure:** dying before leaves it to the other workers that heard it.
        """

    @abstractmethod
    def current(self) -> frozenset[str]:
        """All that are remembered."""


class Firings(ABC):
    """What the entries of a schedule fired last, changed only by the beat in office."""

    @abstractmethod
    def read(self, office: str) -> Beats:
        """Every entry's last firing, and whose the office is."""

    @abstractmethod
    def replace(self, term: Term, old: Firing | None, new: Firing) -> Firing:
        """Put ``new`` in the place of ``old``, or where nothing is, and keep a bounded history of the claimed ones.

        Args:
            term: on whose behalf; asked for in the same step.
            old: what the caller believes to be there; None: nothing.
            new: of the same entry.

        Returns:
            What is there now: ``new``, also if an earlier call put it there, or what somebody else did.

        Raises:
            LockLost: the term is over, or its lease is not open: nothing changed.
            StoreUnavailable: no answer; it may have happened.

        **Failure:** a firing that is there and not marked as sent is sent by the next beat in office.
        """

    @abstractmethod
    def drop(self, term: Term, entries: tuple[str, ...]) -> int:
        """Forget entries that left the schedule; returns how many. Raises like :meth:`replace`."""

    @abstractmethod
    def history(self) -> list[tuple[float, Firing]]:
        """Claimed firings, the last one first, each with its time by the store's clock; some hundred."""


class Store(ABC):
    """One store, four ports, and what it can tell people."""

    #: None: this store cannot say.
    survey: Survey | None = None

    leases: LeaseStore
    court: Court
    locks: LockStore
    uniques: Uniques
    revocations: Revocations
    firings: Firings

    @abstractmethod
    def close(self) -> None:
        """Drop the connections of this process. Leases are not touched."""
