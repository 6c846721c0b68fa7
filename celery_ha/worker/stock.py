"""Compares what a node thinks it holds with what the broker has in flight for it (rule 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Ending

logger = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY = 30.0
#: The same, where something may still be on its way.
SOON = 2.0


class Stock:
    """Finds messages that are in nobody's hands although a living lease has them."""

    def __init__(self) -> None:
        #: Claims of all requests that Celery still knows.
        self.live: Callable[[], frozenset[str]] = frozenset
        #: Gives back the credit that a claim took.
        self.credit: Callable[[str], None] = lambda _claim: None
        #: What else is to be done now and then.
        self.tidy: Callable[[], None] = lambda: None
        #: Claims that wait for a lock or a rate limit, known to no request in a pool.
        self.standing_by: set[str] = set()
        self._due = 0.0
        self._orphans: frozenset[str] = frozenset()

    def due(self, now: float) -> bool:
        """Whether it is time."""
        return now >= self._due

    def again(self, seconds: float) -> None:
        """Take stock in so many seconds."""
        self._due = monotonic() + seconds

    def take(self, ledger: Ledger, held: Callable[[], dict[str, bool]]) -> None:
        """Give back what the broker has for us and we never saw, and what our own code lost.

        Args:
            ledger: of the current lease.
            held: asks the broker.

        Raises:
            StoreUnavailable: the broker was not reached.
        """
        self.again(SOON)  # if nobody answers
        soon = self._due
        self.tidy()
        lost = ledger.strangers(held())
        if self._due == soon:  # nobody wants it sooner meanwhile
            self.again(EVERY)
        if lost:
            logger.warning("Giving back %d messages whose delivery was lost on the way", len(lost))
            ledger.adopt(lost)
        self._find_orphans(ledger)

    def _find_orphans(self, ledger: Ledger) -> None:
        """Give back claims let through the gate whose request is gone, at two looks in a row.

        An error in one of Celery's callbacks can end a request without ending its message.
        """
        running = ledger.running()
        self.standing_by &= running
        orphans = running - self.live() - self.standing_by
        for claim in sorted(orphans & self._orphans):
            logger.error("Giving back message %s, whose request came to no end", claim)
            ledger.end(claim, Ending.RELEASE)
            self.credit(claim)
        self._orphans = orphans
