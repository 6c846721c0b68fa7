"""The node a worker is: its current life, and what channels and requests need of it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from celery.worker import state

from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.redis import RedisBroker
from celery_ha.brokers.transport import BATCH
from celery_ha.config import Config
from celery_ha.detector import Patience
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.failover.keeper import Keeper
from celery_ha.failover.observer import Observed, Observer, Pace
from celery_ha.failover.roles import Role
from celery_ha.model import Ending, Node, Settlement
from celery_ha.store.base import Store
from celery_ha.worker.heartbeats import Heartbeats
from celery_ha.worker.life import Life
from celery_ha.worker.page import TrustPage
from celery_ha.worker.shards import owned_shards

logger = logging.getLogger(__name__)

#: Seconds between two looks at what the broker has in flight for us (rule 2).
STOCK_EVERY = 30.0
#: The same, after a reconnect.
STOCK_SOON = 2.0
#: Seconds between two tries to free the locks of a claim that ended.
ASK_AGAIN = 0.5
#: Task ids whose busy locks are remembered.
BUSY_MEMORY = 10_000


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
    """

    def __init__(
        self,
        name: str,
        queues: tuple[str, ...],
        concurrency: int,
        config: Config,
        store: Store,
        broker: RedisBroker,
        control: RedisBroker,
        *,
        serial: bool = False,
        watch_loop: bool = False,
    ) -> None:
        self.name = name
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
        #: Raises the prefetch count for one message that waits here without wanting a slot; what it
        #: returns lowers it again.
        self.lend: Callable[[], Callable[[], None]] = lambda: lambda: None
        #: Claims of all requests that Celery still knows.
        self.live_claims: Callable[[], frozenset[str]] = frozenset
        #: Called from a thread when membership changed.
        self.on_members: Callable[[], None] = lambda: None
        #: Listens to Celery's heartbeat events while this node observes all the time.
        self.heartbeats: Heartbeats | None = None
        self._control = control
        self._serial = serial
        self._watch_loop = watch_loop
        self._weight = concurrency
        self._shards = {queue: count for queue, count in config.queues.items() if queue in queues}
        self._draining = False
        self._stock_due = 0.0
        self._standing_by: set[str] = set()
        self._busy: OrderedDict[str, int] = OrderedDict()
        self._aside: ThreadPoolExecutor | None = None
        self._asides: list[Future[None]] = []
        self._orphans: frozenset[str] = frozenset()
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
        self._shards = {queue: self._control.widest(queue, count) for queue, count in self._shards.items()}
        node = Node(uuid4().hex, self.name, self._weight, self.queues, ttl=self.config.lease_ttl)
        keeper = Keeper(
            node,
            self.store.leases,
            self._control,
            clock=monotonic,
            margin=self.config.trust_margin,
            wedged_after=self.config.wedged_after,
            renew_every=self.config.renew_every,
        )
        keeper.open()
        observer = Observer(
            node.lease,
            self.store.court,
            self._control,
            self.store.locks,
            ttl=self.config.lease_ttl,
            pace=Pace(self.config.look_every),
            patience=Patience(confirm_after=self.config.confirm_after),
        )
        self._life = Life(
            keeper,
            observer,
            Ledger(node.lease, self._on_owed),
            self.page,
            wait=lambda seconds: self.store.leases.wait(node.lease, seconds),
            suspected=self._suspects,
            on_observed=self._on_observed,
            on_change=self._on_change,
        )
        self._life.start()
        logger.info("Opened lease %s as %s", node.lease, self.name)

    def ensure_open(self) -> None:
        """The zombie's way back: a fenced node goes on under a new lease."""
        if self._life is None or self._life.fenced or self._life.keeper.over:
            if self._life is not None:
                self._life.end()
            self.open()

    def drain(self) -> None:
        """Give the shards away at once; what runs goes on."""
        self._weight = 0
        # The loop stops turning now, while what runs may run on for long: that is no wedge, and
        # what ends is confirmed at once, not when the last task has ended.
        self._watch_loop, self._draining = False, True
        self.life.pulse = None
        try:
            self.life.keeper.offer(weight=0)
        except (StoreUnavailable, Fenced):
            logger.warning("Could not tell the others that %s drains; they will see it leave", self.name)

    def unpack(self) -> None:
        """While it drains: say at once what has ended, and give back what was claimed meanwhile.

        A claim sent just before may still be carried out, so it looks again a little later.
        """
        self.aside(self._settle_up)
        timer = threading.Timer(STOCK_SOON, lambda: self.aside(self._settle_up))
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
        wait(self._asides, timeout=self.config.lease_ttl)
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
        life.end()
        if self._aside is not None:
            self._aside.shutdown(wait=False)
            self._aside = None
        if self.heartbeats:
            self.heartbeats.listen(False)
        self._life = None
        return clean

    # -- intake -----------------------------------------------------------------------------

    @property
    def lease(self) -> str:
        return self.life.keeper.lease

    @property
    def ledger(self) -> Ledger:
        return self.life.ledger

    @property
    def batch_limit(self) -> int:
        if not self.life.keeper.trusted:
            return 0
        return 1 if self._serial else BATCH

    def free_slots(self) -> int:
        return max(0, self.concurrency() - len(state.reserved_requests))

    def waiting(self) -> int:
        return max(0, len(state.reserved_requests) - self.concurrency())

    def check(self) -> None:
        life = self.life
        if life.fenced:
            raise Fenced
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
            life.pulse = None if before is None or self._draining else monotonic()

    @property
    def fenced(self) -> bool:
        """The current lease is given up."""
        life = self._life
        return life is not None and (life.fenced or life.keeper.over)

    def settle(self, owed: tuple[Settlement, ...]) -> bool:
        with self._reaching():
            return self.broker.settle(self.lease, owed)

    def stock_due(self, now: float) -> bool:
        return now >= self._stock_due

    def refused(self) -> None:
        self.life.refused()

    def reconnected(self) -> None:
        """A new connection: give back what nobody here will run any more (rule 2).

        A claim sent on the old connection may still be carried out, so stock is taken again soon.
        """
        self.give_back_idle()
        self.take_stock()
        self._stock_due = monotonic() + STOCK_SOON

    def between_claims(self) -> None:
        """No claim is under way on the channel: the moment for taking stock."""
        if monotonic() >= self._stock_due:
            self.take_stock()

    def take_stock(self) -> None:
        """Give back claims that the broker has for us and that we never saw (rule 2).

        Raises:
            StoreUnavailable: the broker was not reached.
        """
        ledger = self.ledger
        self._stock_due = monotonic() + STOCK_EVERY
        with self._reaching():
            held = self.broker.held(ledger.lease)
        lost = ledger.strangers(held)
        if lost:
            logger.warning("Giving back %d messages whose delivery was lost on the way", len(lost))
            ledger.adopt(lost)
        self._find_orphans(ledger)

    def _find_orphans(self, ledger: Ledger) -> None:
        """Give back claims let through the gate whose request is gone, at two looks in a row.

        An error in one of Celery's callbacks can end a request without ending its message.
        """
        self._standing_by &= ledger.running()
        orphans = ledger.running() - self.live_claims() - self._standing_by
        for claim in sorted(orphans & self._orphans):
            logger.error("Giving back message %s, whose request came to no end", claim)
            ledger.end(claim, Ending.RELEASE)
        self._orphans = orphans

    # -- requests ---------------------------------------------------------------------------

    def start(self, claim: str) -> bool:
        """The write without which no body runs (rule 1).

        Returns:
            False: the attempt must not start; its message is elsewhere, given back, or found by
            :meth:`take_stock`.
        """
        life = self.life
        ledger = life.ledger
        if not self.holds(claim):
            return False
        if not life.keeper.trusted:
            ledger.defer(claim)
            ledger.end(claim, Ending.RELEASE)
            return False
        self._standing_by.discard(claim)
        if ledger.started(claim):
            return ledger.run(claim)
        return self._ask(ledger, claim) and ledger.run(claim)

    def marked(self, claim: str) -> bool:
        """Whether the broker has this attempt marked started already."""
        return self.holds(claim) and self.life.ledger.started(claim)

    def holds(self, claim: str) -> bool:
        """Whether the claim is in this node's hands, under its current lease."""
        life = self._life
        return life is not None and not life.fenced and life.ledger.holds(claim)

    def _ask(self, ledger: Ledger, claim: str) -> bool:
        owed = ledger.owed()
        try:
            with self._reaching():
                granted = self.broker.start(ledger.lease, claim, settle=owed)
        except StoreUnavailable as exc:
            logger.warning("Could not ask to start claim %s: %s", claim, exc)
            ledger.forget(claim)
            self._stock_due = 0.0
            return False
        if granted:
            ledger.confirmed(owed)
        else:
            ledger.forget(claim)
            self.refused()
        return granted

    def runs(self, claim: str) -> bool:
        """Whether the gate has let this claim through."""
        return self._life is not None and claim in self._life.ledger.running()

    def interrupted(self, claim: str) -> None:
        """A started attempt was killed: to the front of its queue, counted."""
        if self._life is not None:
            self._life.ledger.end(claim, Ending.RELEASE)

    def defer(self, claim: str) -> None:
        """A started attempt did not run its body after all and waits."""
        if self._life is not None:
            self._life.ledger.defer(claim)
            self._standing_by.add(claim)

    def give_back(self, claim: str) -> None:
        """To the front of its queue, not counted as an attempt."""
        self._standing_by.discard(claim)
        if self._life is not None:
            self._life.ledger.defer(claim)
            self._life.ledger.end(claim, Ending.RELEASE)

    def give_back_idle(self, queues: frozenset[str] | None = None) -> tuple[str, ...]:
        """Give back every claim that the gate has not let through, of these queues or of all."""
        ledger = self.ledger
        given = []
        for claim in ledger.idle():
            source = ledger.source(claim) or ""
            if queues is None or self.broker.layout.queue(source) in queues:
                self.give_back(claim)
                given.append(claim)
        return tuple(given)

    def aside(self, call: Callable[[], object]) -> None:
        """Run something that may wait for a server off the loop."""
        if self._aside is None:
            self._aside = ThreadPoolExecutor(4, thread_name_prefix="ha-aside")
        with suppress(RuntimeError):  # shut down: the worker has said goodbye
            self._asides = [*(f for f in self._asides if not f.done()), self._aside.submit(_logged, call)]

    def locks_ended(self, claim: str, task: str = "") -> None:
        """Free the locks of a claim whose process is gone, and with ``task`` what is in trust for it (rules 5, 8)."""
        tasks = (task,) if task else ()
        life = self._life

        def free() -> None:
            # Nobody else does it while the lease lives on; when it ends, they are settled with it.
            while life is self._life:
                try:
                    self.store.locks.ended((claim,), tasks)
                except StoreUnavailable:
                    sleep(ASK_AGAIN)
                else:
                    return

        self.aside(free)

    def bury(self, claim: str, reason: str) -> None:
        """To the dead letters; from any thread."""
        if self._life is not None:
            self._life.ledger.end(claim, Ending.DEAD, reason=reason)

    def times_busy(self, task: str) -> int:
        """How often this task found its lock busy here before."""
        times = self._busy.pop(task, -1) + 1
        self._busy[task] = times
        if len(self._busy) > BUSY_MEMORY:
            self._busy.popitem(last=False)
        return times

    # -- shards -----------------------------------------------------------------------------

    def shards(self) -> frozenset[str]:
        """The shards this node consumes now."""
        return owned_shards(self.name, self._shards, self._known_members())

    def is_shard(self, queue: str) -> bool:
        base, _, index = queue.rpartition(".")
        return base in self._shards and index.isdecimal()

    def _known_members(self) -> tuple[Node, ...]:
        life = self.life
        me = replace(life.keeper.node, weight=self._weight, opened=float("inf"))
        return (*(node for node in life.members if node.lease != me.lease), me)

    # -- inside -----------------------------------------------------------------------------

    def _suspects(self) -> frozenset[str]:
        return self.heartbeats.suspects() if self.heartbeats else frozenset()

    def _on_observed(self, observed: Observed) -> None:
        """From the observer's thread: say what was done, listen if that is our part."""
        if self.heartbeats:
            self.heartbeats.listen(observed.role is not Role.WATCHER)
        if observed.elected is not None:
            logger.info("%s leads in term %d", self.name, observed.elected)
        for verdict in observed.fenced:
            logger.warning("Fenced lease %s: %s", verdict.lease, verdict.reason)
        for result in observed.recovered:
            logger.warning(
                "Recovered lease %s: %d messages back in their queues, %d of them had started, %d locks settled",
                result.lease,
                result.requeued,
                result.restarted,
                result.locks,
            )

    def _on_owed(self) -> None:
        self.wake()
        if self._draining:
            self.aside(self._pay)

    def _on_change(self) -> None:
        self.on_members()
        self.wake()

    def _pay(self) -> None:
        ledger = self.ledger
        owed = ledger.owed()
        if owed and self.broker.settle(ledger.lease, owed):
            ledger.confirmed(owed)


def _logged(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        logger.exception("%r failed", call)
