"""Keeps one lease: opens it, renews it, knows for how long it may be trusted, says goodbye.

A lease is trusted until (start of the last successful renewal attempt + TTL - margin) on the local
monotonic clock. No observer calls a node dead before a whole TTL has passed since it saw that
renewal's effect, which is later than the start of the attempt: trust ends before the verdict. Where the
store drops the sessions of a silent process sooner, that time stands for the TTL.

There is no thread here; whoever drives :meth:`Keeper.step` may do so from one thread only, while
every thread may ask :attr:`Keeper.trusted`. After riverqueue/river ``internal/leadership`` (trust =
attempt started + TTL - margin).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from celery_ha.brokers.base import Door
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.model import LeaseState, Node, Renewal
from celery_ha.store.base import LeaseStore

#: Renewals tried in one TTL, unless told otherwise.
RENEWALS = 3
#: Seconds before a failed renewal is tried again: "at once", but no faster than this.
RETRY = 0.1

_NEVER = float("-inf")


@dataclass(frozen=True)
class Kept:
    """What one step of the keeper found."""

    #: The answer; None: the store was not reached, or the main loop is wedged.
    renewal: Renewal | None
    #: Seconds until the next step is due.
    again_in: float
    #: The main loop was silent for too long, so nothing was renewed (rule 10).
    wedged: bool = False


class Keeper:
    """One lease of one node.

    Args:
        node: the node under its new lease; a lease is never used for a second Keeper.
        leases: the store.
        broker: the broker's own record of open leases.
        clock: local monotonic time.
        margin: seconds of trust given up early, for the time from a last look at the trust to the
            first instruction of what it allows.
        wedged_after: seconds a main loop may be silent before renewals stop (rule 10).
        renew_every: seconds between renewals; None: so many in a TTL.
    """

    def __init__(
        self,
        node: Node,
        leases: LeaseStore,
        broker: Door,
        *,
        clock: Callable[[], float],
        margin: float,
        wedged_after: float,
        renew_every: float | None = None,
    ) -> None:
        self.node = node
        #: Local monotonic time until which the lease may be trusted.
        self.trusted_until = _NEVER
        self._leases = leases
        self._broker = broker
        self._clock = clock
        self._margin = margin
        self._wedged_after = wedged_after
        self._renew_every = node.ttl / RENEWALS if renew_every is None else renew_every
        self._epoch = ""
        self._over = False

    @property
    def lease(self) -> str:
        return self.node.lease

    @property
    def trusted(self) -> bool:
        """Whether the lease may be trusted now."""
        return self._clock() < self.trusted_until

    @property
    def over(self) -> bool:
        """The lease is fenced or closed and never comes back."""
        return self._over

    def open(self) -> None:
        """Open the lease: broker first, then store (rule 6). Can be repeated until it succeeds.

        Raises:
            Fenced: somebody gave this lease up meanwhile; take a new one.
            StoreUnavailable: store or broker were not reached; nothing is trusted.

        **Failure:** dying after the broker's half leaves a stranger there that holds nothing; it is
        recovered after a TTL. Dying after the store's half leaves an open lease that stands still;
        it is fenced after a TTL.
        """
        started = self._clock()
        with self._distrust():
            self._assert()
        self._trust(started)

    def step(self, pulse: float | None = None) -> Kept:
        """Renew once.

        Args:
            pulse: when the main loop last showed that it turns, local monotonic time; None: it
                cannot say, then it is never taken for wedged.

        Returns:
            What was found; a store that was not reached is no error here, but ends all trust until
            the next success.

        Raises:
            Fenced: for good; every later step raises it too.

        **Failure:** dying right after a renewal leaves a counter that stands still from now on.
        """
        if self._over:
            raise Fenced
        started = self._clock()
        if pulse is not None and started - pulse > self._wedged_after:
            return Kept(None, self._pace(), wedged=True)
        try:
            with self._distrust():
                renewal = self._renew()
        except StoreUnavailable:
            return Kept(None, RETRY)
        self._trust(started)
        return Kept(renewal, self._pace())

    def dropped(self) -> None:
        """The lease connection dropped: nothing is trusted until the next successful step, which is due at once."""
        self.trusted_until = _NEVER

    def refused(self) -> None:
        """The broker answered that the lease is not open there: join again, if it never was fenced.

        Raises:
            Fenced: it was, for good.
            StoreUnavailable: the broker was not reached; ask again.
        """
        with self._distrust():
            self._join()

    def offer(self, weight: int, *, leaving: bool = False) -> bool:
        """Change what the node offers, also for a later re-assertion.

        Returns:
            False: the lease is not open now; a re-assertion will carry the change.

        Raises:
            StoreUnavailable: the store was not reached; ask again.
        """
        self.node = replace(self.node, weight=weight, leaving=leaving)
        return self._leases.update(self.lease, weight, leaving=leaving)

    def goodbye(self) -> bool:
        """Close the lease (rule 7). What was settled must be confirmed before, or it counts as luggage.

        Returns:
            True: it held nothing and is gone. False: it held claims, or somebody was not reached:
            the lease is fenced, by us now or by the leader after a TTL, and what it held moves on.

        **Failure:** dying before the broker's half, or between the halves, leaves an open lease
        that stands still: a death like any other. The broker refuses a lease that left.
        """
        self._end()
        clean = False
        with contextlib.suppress(StoreUnavailable):
            clean = self._broker.leave(self.lease)
        try:
            return self._leases.close(self.lease, clean=clean) and clean
        except StoreUnavailable:
            return False

    def _renew(self) -> Renewal:
        renewal = self._leases.renew(self.lease)
        if renewal.state is LeaseState.OPEN:
            self._epoch = renewal.epoch
            return renewal
        if renewal.state is LeaseState.UNKNOWN and renewal.epoch != self._epoch:
            # A store that lost its memory has fenced nobody; a broker that fenced us still refuses.
            self._assert()
            return replace(renewal, state=LeaseState.OPEN, epoch=self._epoch)
        raise Fenced

    def _assert(self) -> None:
        self._join()
        self._epoch = self._leases.open(self.node)

    def _join(self) -> None:
        if not self._broker.join(self.lease):
            raise Fenced

    def _pace(self) -> float:
        return self._renew_every * self._scale

    def _trust(self, started: float) -> None:
        self.trusted_until = started + (self.node.ttl - self._margin) * self._scale

    @property
    def _scale(self) -> float:
        """All times shrink alike where the store gives a silent process up before the TTL is over."""
        return min(self._leases.notice / self.node.ttl, 1.0)

    def _end(self) -> None:
        self._over = True
        self.trusted_until = _NEVER

    @contextlib.contextmanager
    def _distrust(self) -> Iterator[None]:
        """End trust for a moment or for good when the block fails."""
        try:
            yield
        except Fenced:
            self._end()
            raise
        except StoreUnavailable:
            self.dropped()
            raise
