"""One incarnation of a node: its lease, what it holds, and the two threads that keep and judge.

The threads never touch Celery's loop; they note what happened and ring :attr:`Life.on_change`.
A thread that fails says so in the log and goes on: a renewer that dies in silence would be a death.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from celery_ha.brokers.ledger import Ledger
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.failover.keeper import Keeper
from celery_ha.failover.observer import Observed, Observer
from celery_ha.model import Node, Rings
from celery_ha.telling import news
from celery_ha.telling.teller import Teller
from celery_ha.worker.page import TrustPage

logger = logging.getLogger(__name__)

#: Seconds before a thread that failed unexpectedly tries again.
AGAIN = 1.0


class Life:
    """From opening a lease to its end.

    Args:
        keeper: opened already.
        observer: of the same lease.
        ledger: of the same lease.
        page: where the trust is told to the pool's children.
        wait: sleeps until the node's own bell rings in the store, at most the given seconds.
        suspected: names of the nodes whose heartbeats are missing.
        on_change: called from a thread when the lease is fenced, or when members or the last rings changed.
        teller: tells of what becomes of the lease.
        on_told: called from a thread after the trust was told to the pool's children, and when the lease is fenced.
    """

    def __init__(
        self,
        keeper: Keeper,
        observer: Observer,
        ledger: Ledger,
        page: TrustPage,
        *,
        wait: Callable[[float], bool],
        suspected: Callable[[], frozenset[str]],
        on_observed: Callable[[Observed], None],
        on_change: Callable[[], None],
        teller: Teller,
        on_told: Callable[[Life], None],
    ) -> None:
        self.keeper = keeper
        self.ledger = ledger
        #: When the main loop last turned; None where it turns too seldom to tell (rule 10).
        self.pulse: float | None = None
        #: Called by the thread that renews, each time, with the pulse.
        self.on_kept: Callable[[float | None], None] = lambda _pulse: None
        self.fenced = False
        #: Goodbye is being said: that the lease is over is no news.
        self.leaving = False
        #: The members, and the last rings that were read with them.
        self.fleet: tuple[tuple[Node, ...], Rings] = ((), {})
        self._observer = observer
        self._page = page
        self._wait = wait
        self._suspected = suspected
        self._on_observed = on_observed
        self._on_change = on_change
        self._teller = teller
        self._on_told = on_told
        self._wedged = False
        #: When the next renewal is due, local monotonic time.
        self._due = monotonic()
        self._refused = False
        self._kick = threading.Event()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, name="ha-keeper", daemon=True),
            threading.Thread(target=self._observe, name="ha-observer", daemon=True),
        ]

    def start(self) -> None:
        """Trust is told and the threads run."""
        self._tell()
        for thread in self._threads:
            thread.start()

    def refused(self) -> None:
        """The broker does not know our lease: have the keeper look into it at once."""
        self._refused = True
        self._kick.set()

    def end(self) -> None:
        """Stop both threads; the lease itself is left as it is."""
        self._over.set()
        self._kick.set()
        self._page.write("", float("-inf"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=AGAIN)

    # -- keeping ----------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._over.is_set():
            again_in = AGAIN
            try:
                again_in = self._keep_once()
            except Fenced:
                if not self.leaving:
                    self._lost()
                return
            except Exception:
                logger.exception("Renewing lease %s failed; trying again in %s s", self.keeper.lease, AGAIN)
            self._kick.wait(again_in)
            self._kick.clear()

    def _keep_once(self) -> float:
        self.on_kept(self.pulse)
        try:
            if self._refused:
                self.keeper.refused()
                self._refused = False
            kept = self.keeper.step(self.pulse)
            if kept.renewal is not None:
                self._teller.measure("renewal_lag", max(0.0, monotonic() - self._due))
                self._due = monotonic() + kept.again_in
        except StoreUnavailable:
            return AGAIN
        finally:
            self._tell()
        if kept.wedged and not self._wedged:
            reason = "its main loop does not turn, so its lease is not renewed"
            self._teller.tell(news.WEDGED, lease=self.keeper.lease, reason=reason)
        self._wedged = kept.wedged
        return kept.again_in

    def _tell(self) -> None:
        if not self._over.is_set():
            self._page.write(self.keeper.lease, self.keeper.trusted_until)
            self._on_told(self)

    def _lost(self) -> None:
        self._teller.tell(news.LEASE_LOST, lease=self.keeper.lease, reason="fenced by the leader")
        self.fenced = True
        self._on_told(self)
        self._on_change()

    # -- observing --------------------------------------------------------------------------

    def _observe(self) -> None:
        while not self._over.is_set() and not self.fenced:
            again_in = AGAIN
            try:
                again_in = self._observe_once()
            except Exception:
                logger.exception("Observing failed; trying again in %s s", AGAIN)
            self._pause(again_in)

    def _observe_once(self) -> float:
        observed = self._observer.step(self._suspected())
        if observed.look is not None:
            before, self.fleet = self.fleet, (observed.members, observed.look.rings)
            # Rings that were written down since are those that everybody had worked out; but a look at a ZooKeeper
            # takes several reads, and may have had the members of one change with the rings of the one before.
            if self.fleet != before:
                self._on_change()
        else:
            # Our own connection may be the one that dropped: trust nothing until a renewal says so.
            self._doubt()
        if observed.failure is not None and not isinstance(observed.failure, StoreUnavailable):
            logger.error("What was seen of the others could not be acted on", exc_info=observed.failure)
        self._on_observed(observed)
        return observed.again_in

    def _doubt(self) -> None:
        self.keeper.dropped()
        self._tell()
        self._kick.set()

    def _pause(self, seconds: float) -> None:
        """Until the next look is due, or the members changed."""
        until = monotonic() + seconds
        if seconds <= 0:
            return
        try:
            self._wait(seconds)
        except StoreUnavailable:
            self._doubt()
            self._over.wait(max(0.0, min(0.1, until - monotonic())))
        except Exception:
            logger.exception("Waiting for the store failed")
            self._over.wait(AGAIN)
