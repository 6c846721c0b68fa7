"""The node a worker is: its current life, and what channels and requests need of it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Any

from celery.worker import state

from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.transport import BATCH
from celery_ha.config import Config
from celery_ha.errors import Fenced, StoreError, StoreUnavailable
from celery_ha.failover.observer import Observed
from celery_ha.failover.roles import Role
from celery_ha.model import DOUBT, Ending, Node, Rings, Settlement
from celery_ha.store.base import Store
from celery_ha.telling import news
from celery_ha.telling.teller import Teller
from celery_ha.worker.announcer import Announcer
from celery_ha.worker.aside import Aside
from celery_ha.worker.birth import begin_life
from celery_ha.worker.busyness import Busyness
from celery_ha.worker.custody import Custody
from celery_ha.worker.dying import Dying
from celery_ha.worker.heartbeats import Heartbeats
from celery_ha.worker.life import Life
from celery_ha.worker.page import TrustPage
from celery_ha.worker.reception import Reception
from celery_ha.worker.share import Share
from celery_ha.worker.signs import Signs
from celery_ha.worker.stock import SOON, Stock

logger = logging.getLogger(__name__)

#: Seconds for the last events to be sent.
LAST_WORDS = 2.0


class WorkerNode:
    """A worker's main process, through all its leases. Implements ``brokers.intake.Intake``.

    Args:
        name: Celery node name.
        queues: base names of the queues it consumes.
        concurrency: pool size, its weight in the ring.
        config: settings.
        store: leases, court, locks.
        broker: for the main loop; ``control`` is its twin for the threads, with short timeouts.
        serial: the pool runs a task inside the read (solo): claim one at a time.
        watch_loop: the main loop turns all the time, so its silence means it is wedged (rule 10).
        teller: who tells what it decides; None: the log alone.
    """

    def __init__(
        self,
        name: str,
        queues: tuple[str, ...],
        concurrency: int,
        config: Config,
        store: Store,
        broker: NodeBroker,
        control: NodeBroker,
        *,
        serial: bool = False,
        watch_loop: bool = False,
        teller: Teller | None = None,
    ) -> None:
        self.name = name
        #: Of the main process.
        self.pid = os.getpid()
        self.queues = queues
        self.config = config
        self.store = store
        self.broker = broker
        self.page = TrustPage()
        #: Pool size now.
        self.concurrency: Callable[[], int] = lambda: concurrency
        #: Wakes the main loop, from any thread.
        self.wake: Callable[[], None] = lambda: None
        #: Runs a function on the main loop after some seconds.
        self.later: Callable[[float, Callable[[], None]], Any] = lambda _delay, call: call()
        #: A slot of the pool has become free; from any thread.
        self.on_slot_freed: Callable[[], None] = lambda: None
        #: Raises the prefetch count for one message that waits here without wanting a slot; what it
        #: returns lowers it again.
        self.lend: Callable[[], Callable[[], None]] = lambda: lambda: None
        self.stock = Stock()
        self._closing = False
        #: The messages in its hands.
        self.claims = Custody(lambda: self._life, broker, self.stock, self._reaching, config)
        #: Its children that are being killed.
        self.dying = Dying(self._call_later)
        #: Off the loop.
        self.aside = Aside()
        #: What is heard of its queues.
        # A loop that hangs is helped before the lease is given up for it.
        self.reception = Reception(min(config.stuck_after, config.wedged_after / 2))
        self.reception.on_stuck = lambda queues, reason: self.announcer.tell(
            news.STUCK, queues=",".join(queues), reason=reason
        )
        #: How often tasks found their locks busy here.
        self.busy = Busyness()
        #: Called from a thread when membership changed.
        self.on_members: Callable[[], None] = lambda: None
        #: How often members have changed, or this lease has ended.
        self.changes = 0
        #: Listens to Celery's heartbeat events while this node observes all the time.
        self.heartbeats: Heartbeats | None = None
        #: Tells what this node decides.
        self.announcer = Announcer(teller or Teller(), name, self._lease_or_none, broker.queue_of)
        #: How it is, for the probe.
        self.signs = Signs(name, config.probe_dir, config.wedged_after)
        self._control = control
        self._serial = serial
        self._watch_loop = watch_loop
        #: What it takes of the sharded queues.
        self.share = Share(
            name,
            concurrency,
            {queue: count for queue, count in config.queues.items() if queue in queues},
            control.widest,
            patience=config.lease_ttl,
        )
        #: Whom this node has told that it doubts, and until when that is known.
        self._doubted: dict[str, float] = {}
        self._life: Life | None = None

    # -- life -------------------------------------------------------------------------------

    @property
    def life(self) -> Life:
        if self._life is None:
            raise Fenced("this node has no lease")
        return self._life

    def open(self) -> None:
        """Take a new lease and start to keep it.

        Raises:
            StoreUnavailable: store or broker were not reached; nothing holds anything, try again.

        **Failure:** see :meth:`celery_ha.failover.keeper.Keeper.open`.
        """
        self.share.begin()
        self._closing = False
        self._life = begin_life(
            self.name,
            self.share.weight,
            self.queues,
            self.share.shards,
            config=self.config,
            store=self.store,
            broker=self._control,
            page=self.page,
            on_owed=self._on_owed,
            suspected=self._suspects,
            on_observed=self._on_observed,
            on_change=self._on_change,
            teller=self.announcer.teller,
            on_told=self.signs.show_life,
        )
        self._life.on_kept = self.reception.silent
        self.announcer.tell(news.LEASE_OPENED)

    def ensure_open(self) -> None:
        """The zombie's way back: a fenced node goes on under a new lease."""
        if self._life is None or self._life.fenced or self._life.keeper.over:
            if self._life is not None:
                self._life.end()
            try:
                self.open()
            except StoreUnavailable:
                self.signs.waits_for_store()
                raise

    def drain(self) -> None:
        """Give the shards away at once; what runs goes on."""
        # The loop stops turning now, while what runs may run on for long: that is no wedge, and
        # what ends is confirmed at once, not when the last task has ended.
        self._watch_loop, self.share.leaving = False, True
        self.announcer.tell(news.DRAINING)
        self.signs.show(draining=True)
        self.life.pulse = None
        self._offer()

    def unpack(self) -> None:
        """While it drains: say at once what has ended, and give back what was claimed meanwhile.

        A claim sent just before may still be carried out, so it looks again a little later.
        """
        life = self._life

        def insist() -> None:
            self.aside.insist(self._settle_up, lambda: life is self._life and not self._closing)

        insist()
        timer = threading.Timer(SOON, insist)
        timer.daemon = True
        timer.start()

    def _settle_up(self) -> None:
        if self._life is not None and not self._life.fenced:
            self.take_stock()
            self._pay()

    def close(self) -> bool:
        """Give back what is left and say goodbye.

        Returns:
            True if the lease held nothing any more; False: the leader recovers what it held (rule 7).
        """
        life = self._life
        if life is None:
            return True
        clean = False
        self._closing = True  # it settles up itself
        self.aside.finish(self.config.lease_ttl)
        if not life.fenced:
            for claim in life.ledger.held():
                life.ledger.end(claim, Ending.RELEASE)
            try:
                self.take_stock()
                self._pay()
            except StoreUnavailable as exc:
                logger.warning("What %s still held is left to the leader: %s", self.name, exc)
            life.leaving = True
            clean = life.keeper.goodbye()
            self.announcer.tell(news.DRAINED, clean=clean)
        life.end()
        self.signs.remove()
        self.aside.close()
        if self.heartbeats:
            self.heartbeats.listen(False)
        self._life = None
        self.announcer.teller.close(LAST_WORDS)
        return clean

    # -- intake -----------------------------------------------------------------------------

    @property
    def lease(self) -> str:
        return self.life.keeper.lease

    @property
    def trusted_until(self) -> float | None:
        """Local monotonic time until which the lease is trusted; None: there is no lease."""
        return None if self._life is None else self._life.keeper.trusted_until

    def _lease_or_none(self) -> str:
        return "" if self._life is None else self._life.keeper.lease

    @property
    def ledger(self) -> Ledger:
        return self.life.ledger

    @property
    def batch_limit(self) -> int:
        if not self.life.keeper.trusted:
            return 0
        return 1 if self._serial else BATCH

    def free_slots(self) -> int:
        # What a zombie could not stop, and what was acked early, runs on after Celery has forgotten what was reserved.
        taken = max(len(state.reserved_requests), len(state.active_requests))
        return max(0, self.concurrency() - taken)

    def check(self) -> None:
        life = self.life
        if life.fenced:
            raise Fenced
        self.reception.check()
        if self._watch_loop:
            life.pulse = monotonic()

    def pulse_stops(self) -> None:
        """The loop is busy reaching the broker: that is no wedge (rule 10)."""
        if self._life is not None:
            self._life.pulse = None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """While the loop waits for an answer of the broker it is not wedged."""
        life = self.life
        before, life.pulse = life.pulse, None
        try:
            yield
        finally:
            life.pulse = None if before is None or self.share.leaving else monotonic()

    @property
    def fenced(self) -> bool:
        """The current lease is given up."""
        life = self._life
        return life is not None and (life.fenced or life.keeper.over)

    def settle(self, owed: tuple[Settlement, ...]) -> bool:
        with self._reaching():
            return self.broker.settle(self.lease, owed)

    def stock_due(self, now: float) -> bool:
        return self.stock.due(now)

    def doubt(self, lease: str) -> None:
        now = monotonic()
        if lease == self.lease or self._doubted.get(lease, now) > now:
            return
        self._doubted = {known: until for known, until in self._doubted.items() if until > now}
        self._doubted[lease] = now + DOUBT

        def tell() -> None:
            with suppress(StoreUnavailable):
                self.store.court.doubt(lease)

        self.aside.run(tell)

    def refused(self) -> None:
        self.life.refused()

    def reconnected(self) -> None:
        """A new connection: give back what nobody here will run any more (rule 2).

        A claim sent on the old connection may still be carried out, so stock is taken again soon.
        """
        self.claims.give_back_idle()
        self.take_stock()
        self.stock.again(SOON)

    def between_claims(self) -> None:
        """No claim is under way on the channel: the moment for taking stock."""
        if self.stock.due(monotonic()):
            self.take_stock()

    def take_stock(self) -> None:
        """Give back messages that are in nobody's hands (rule 2).

        Raises:
            StoreUnavailable: the broker was not reached.
        """
        lease = self.lease

        def held() -> dict[str, bool]:
            with self._reaching():
                return self.broker.held(lease)

        self.stock.take(self.ledger, held)
        self.aside.run(self._free_leftovers)
        if self.share.shards and not self.broker.hands_over:
            self.aside.run(self._count_shards)

    def _count_shards(self) -> None:
        with suppress(StoreUnavailable):  # the next stock-taking counts
            if self.share.count():
                self._on_change()

    def _free_leftovers(self) -> None:
        """Free locks of attempts that are over here: a store that lost its last moments has a released lock again.

        **Failure:** dying within leaves the rest to the settlement of the lease; ending a claim twice is harmless.
        """
        life = self._life
        if life is None or life.fenced:
            return
        found = self.store.locks.claims(life.keeper.lease)
        # Asked first: whoever has taken a lock meanwhile is known here since before.
        known = {*life.ledger.held(), *self.stock.live(), *self.stock.standing_by, *self.dying.claims}
        for claim in found - known:
            logger.warning("Freeing what attempt %s still holds: it is over", claim)
            self.locks_ended(claim)

    # -- requests ---------------------------------------------------------------------------

    def locks_ended(self, claim: str, task: str = "") -> None:
        """Free the locks of a claim whose process is gone, and with ``task`` what is in trust for it (rules 5, 8)."""
        tasks = (task,) if task else ()
        self.insist(lambda: self.store.locks.ended((claim,), tasks))

    def free_key(self, key: str, task: str) -> None:
        """Free the key of a unique task that came to its end here."""
        self.insist(lambda: self.store.uniques.free_key(key, task))

    def insist(self, call: Callable[[], object]) -> None:
        """Make a call off the loop, again and again until the store answers or this life is over."""
        life = self._life
        self.aside.insist(call, lambda: life is self._life)

    def insist_for_good(self, call: Callable[[], object]) -> None:
        """The same for what is no matter of one lease: until the store answers or the worker says goodbye."""
        self.aside.insist(call, lambda: self._life is not None)

    # -- shards -----------------------------------------------------------------------------

    def consume(self) -> None:
        """Take shards from now on: the loop is about to turn."""
        self.share.consume()
        if self.life.keeper.node.weight != self.share.weight:
            with self._reaching():
                self._offer()
        self._on_change()

    def shards(self) -> frozenset[str]:
        """The shards this node consumes now."""
        return self.share.owned(*self._known_fleet())

    def standbys(self) -> dict[str, str]:
        """The shards to subscribe to behind their owner, each with the owner; none where that is of no use."""
        if not self.broker.hands_over or self.share.leaving:
            return {}
        return self.share.inherited(*self._known_fleet())

    def _known_fleet(self) -> tuple[tuple[Node, ...], Rings]:
        life = self.life
        members, last = life.fleet
        me = replace(life.keeper.node, weight=self.share.weight, opened=float("inf"))
        return (*(node for node in members if node.lease != me.lease), me), last

    def _offer(self) -> None:
        """Tell the others what share this node takes; what could not be told is told when that is seen."""
        try:
            self.life.keeper.offer(self.share.weight, leaving=self.share.leaving)
        except (StoreUnavailable, StoreError, Fenced):
            logger.warning("Could not tell the others yet what share of the shards %s takes", self.name)

    # -- inside -----------------------------------------------------------------------------

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self.later(seconds, call)

    def _suspects(self) -> frozenset[str]:
        return self.heartbeats.suspects() if self.heartbeats else frozenset()

    def _on_observed(self, observed: Observed) -> None:
        """From the observer's thread: tell what was done, listen if that is our part.

        What share it takes is told until that is seen: the store may have been away, or have lost it.
        """
        if observed.look is None:
            self.share.blind()
        mine = next((node for node in observed.members if node.lease == self._lease_or_none()), None)
        if mine and (mine.weight, mine.leaving) != (self.share.weight, self.share.leaving):
            self.aside.run(self._offer)
        if self.heartbeats:
            self.heartbeats.listen(observed.role is not Role.WATCHER)
        self.announcer.observed(observed, self._suspects())

    def _on_owed(self) -> None:
        self.wake()
        if self.share.leaving:
            self.aside.run(self._pay)

    def _on_change(self) -> None:
        self.changes += 1
        self.on_members()
        self.wake()

    def _pay(self) -> None:
        ledger = self.ledger
        with ledger.telling() as owed:
            if owed and self.broker.settle(ledger.lease, owed):
                ledger.confirmed(owed)
