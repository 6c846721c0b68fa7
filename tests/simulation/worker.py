"""A simulated worker process: the real Keeper and Observer, a model of the consuming main loop, and its children.

The model follows the design's rules where the product's code for them lives in a Celery worker:
start is a write (1), a node knows what it holds (2), acks are resent until confirmed, the end of a
claim frees its locks (5), a zombie writes nothing and comes back under a new lease (7 of the flow, 13).
Mutants override the small methods.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from celery_ha.brokers.memory import MemoryBroker
from celery_ha.detector import Patience
from celery_ha.envelope import DELIVERIES, UNSTARTED, attempts, headers, redelivered, suspected
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.failover.keeper import Keeper
from celery_ha.failover.observer import Observer, Pace
from celery_ha.model import Claim, Ending, Node, Rings, Settlement
from celery_ha.store.memory import MemoryStore
from celery_ha.worker.shards import owned_shards
from tests.simulation.child import Child
from tests.simulation.kernel import Owner
from tests.simulation.ledger import MAX_DELIVERIES
from tests.simulation.network import Caller, Wire
from tests.simulation.rabbit import HEARTBEAT, RabbitBroker
from tests.simulation.shards import BASE, LEFT

if TYPE_CHECKING:
    from tests.simulation.world import World

TTL = 4.0
MARGIN = 0.2
WEDGED_AFTER = 3.0
CONFIRM_AFTER = 0.5
PACE = Pace(look_every=0.3, suspicious_every=0.15)
PATIENCE = Patience(confirm_after=CONFIRM_AFTER, late_after=0.8)
POLL = 0.35
#: Seconds between two readings of what the lease holds (30 in the product).
RECONCILE = 5.0
#: Most payloads have never been started: no need to read them.
_COUNTED = DELIVERIES.encode()
_HINT = UNSTARTED.encode()


class Process(Caller):
    """One worker process from its start to its end; it may live under several leases."""

    def __init__(self, world: World, name: str, incarnation: int) -> None:
        super().__init__(world, name)
        rng = world.rng
        self.incarnation = f"{name}-{incarnation}"
        self.offset = rng.uniform(0, 1000)
        self.slots = rng.choice([1, 1, 2, 3])
        self.prefetch = rng.choice([0, 1, 2])
        self.threads_pool = rng.random() < 0.5
        self.lease_store = MemoryStore(world.store, self.clock)
        self.court_store = MemoryStore(world.store, self.clock)
        rabbit = world.rabbit
        broker = RabbitBroker(rabbit, self.court_store) if rabbit.on else MemoryBroker(world.broker)
        self._doubted = broker.doubted if isinstance(broker, RabbitBroker) else set[str]()
        self.broker = Wire(self, broker, None)
        self.court = Wire(self, self.court_store.court, self.court_store)
        self.locks = Wire(self, self.court_store.locks, self.court_store)
        self.revocations = Wire(self, self.court_store.revocations, self.court_store)
        self.leases = Wire(self, self.lease_store.leases, self.lease_store)
        self.born = world.kernel.now
        self.leaving = False
        self.gone = False
        self.wedged = False
        self.stuck_observer = False
        #: It stands still between joining on the broker and opening in the store.
        self.dawdles = False
        self.pulse = self.clock()
        #: The number of shards by its settings, and the largest that it knows of (rule 16).
        self.setting = world.sharding.setting()
        self.shards = 0
        #: Revoked tasks that it knows.
        self.revoked: set[str] = set()
        #: (kind, from, to) of what went wrong with this process, true time.
        self.troubles: list[tuple[str, float, float]] = []
        #: Who stands still with it now.
        self.standing: list[Owner] = []
        self._leases_used = 0
        self.keeper: Keeper
        self.children: dict[str, Child] = {}
        self._new_lease()
        self.keeper_thread = world.kernel.spawn(self, self._keep)
        self.observer_thread = world.kernel.spawn(self, self._observe)
        self.main_thread = world.kernel.spawn(self, self._main)

    def clock(self) -> float:
        return self.world.kernel.now + self.offset

    # Leases.

    def _new_lease(self) -> None:
        self._leases_used += 1
        lease = f"{self.incarnation}{'abcdefghijklmnopqrstuvwxyz'[self._leases_used % 26]}{self._leases_used}"
        node = Node(lease, self.name, weight=self.slots, queues=(BASE,), ttl=TTL)
        self.keeper = self.make_keeper(node)
        self.observer = self.make_observer(lease)
        self.opened = False
        self.reserved: dict[str, Claim] = {}
        self.aside: dict[str, Claim] = {}
        self.condemned: dict[str, Claim] = {}
        self.outbox: dict[str, Settlement] = {}
        self.to_free: list[str] = []
        self.reconcile_at = 0.0
        #: When it began to consume, true time; whether its last reading of the revocations failed.
        self.began, self.deaf = float("inf"), True
        self.dropped: dict[str, str] = {}
        #: The members and the last rings by its last look, and what it consumes of the shards by them.
        self.members: tuple[Node, ...] = ()
        self.rings: Rings = {}
        self.shards_owned: frozenset[str] = frozenset()
        self._followed: tuple[tuple[Node, ...], int] | None = None
        self.world.ledger.processes[lease] = self

    def make_keeper(self, node: Node) -> Keeper:
        return Keeper(
            node,
            self.leases,
            self.broker,
            clock=self.clock,
            margin=MARGIN,
            wedged_after=WEDGED_AFTER,  # type: ignore[arg-type]
        )

    def make_observer(self, lease: str) -> Observer:
        return Observer(
            lease,
            self.court,
            self.broker,
            self.locks,
            ttl=TTL,
            pace=PACE,
            patience=PATIENCE,  # type: ignore[arg-type]
        )

    @property
    def lease(self) -> str:
        return self.keeper.lease

    def _keep(self) -> None:
        kernel = self.world.kernel
        while not self.gone:
            keeper = self.keeper
            pause = 0.1
            try:
                if keeper.over:
                    pass
                elif not self.opened:
                    if self.world.sharding.on:
                        self.shards = self.widest(opening=True)
                        keeper.node = replace(keeper.node, shards=((BASE, self.shards),))
                    keeper.open()
                    self.opened = keeper is self.keeper
                    self.observer_thread.wake()
                    pause = TTL / 3
                else:
                    pause = self.renew(keeper)
            except StoreUnavailable:
                pass
            except Fenced:
                self.world.trace("found itself fenced", self.lease)
                self.main_thread.wake()
            kernel.nap(pause)

    def renew(self, keeper: Keeper) -> float:
        return keeper.step(self.pulse).again_in

    def connection_dropped(self) -> None:
        """What the thread that waits on the lease connection notices."""
        if not (self.dead or self.gone):
            self.keeper.dropped()
            self.keeper_thread.wake()

    def _observe(self) -> None:
        kernel = self.world.kernel
        while not self.gone:
            if not self.opened or self.keeper.over or self.stuck_observer:
                kernel.nap(0.5)
                continue
            done = self.observer.step()
            if done.failure is not None and not isinstance(done.failure, StoreUnavailable):
                raise done.failure  # a broken guarantee, or an error of ours
            if done.look is not None:
                self.members, self.rings = done.members, done.look.rings
            if done.elected or done.fenced or done.recovered:
                self.world.trace(self.lease, done.role.value, done.elected, done.fenced, done.recovered)
            kernel.nap(max(done.again_in, 0.001))

    # The main loop.

    def _main(self) -> None:
        kernel = self.world.kernel
        while True:
            while self.wedged:
                kernel.sleep(5.0)
            self.pulse = self.clock()
            if self.keeper.over and not self.gone:
                self._rejoin()
            elif self.keeper.trusted:
                try:
                    if self.leaving:
                        self._leave()
                        return
                    self._turn()
                except StoreUnavailable:
                    self.reconcile_at = 0.0
                    kernel.sleep(0.05)
                    continue
                except Fenced:
                    continue
            elif self.leaving and not self.opened:
                self._end()
                return
            kernel.nap(POLL)

    def _turn(self) -> None:
        lease = self.lease
        if self.clock() >= self.reconcile_at:
            self.reconcile(lease)
        if self.world.sharding.on:
            self._follow_members()
        free = self.slots - len(self.children)
        for claim in list(self.reserved.values())[: max(free, 0)]:
            if self.ask_start(lease, claim):
                self.reserved.pop(claim.id, None)
                self._launch(claim)
            else:
                self._refused(lease)
                self.reserved.pop(claim.id, None)
        self._open_suspects(lease)
        self._claim(lease)
        self._free(lease)

    def _claim(self, lease: str) -> None:
        free = max(self.slots - len(self.children) - len(self.reserved), 0)
        limit = max(self.slots + self.prefetch - len(self.children) - len(self.reserved), 0)
        if self.aside:
            free = limit = 0
        owed = tuple(self.outbox.values())
        if self.leaving or not (limit or owed):
            return
        batch = self.broker.claim(lease, self.queues(), limit=limit, slots=free, settle=owed)
        if not batch.open:
            self._refused(lease)
            return
        self._confirmed(owed)
        self._doubt()
        for claim in batch.claims:
            self.reserved[claim.id] = claim
        for claim in batch.claims:
            self._receive(claim)

    def _doubt(self) -> None:
        """Rule 17: what RabbitMQ delivers again although it runs tells of a closed connection."""
        while self._doubted:
            self.court.doubt(self._doubted.pop())

    def queues(self) -> tuple[str, ...]:
        """Rule 16: an owner of shards consumes the base queue too."""
        return (BASE, *sorted(self.shards_owned))

    def widest(self, *, opening: bool) -> int:
        """Rule 16: the largest number of shards that anybody ever used."""
        found: int = self.broker.widest(BASE, self.setting)
        return found

    def _follow_members(self) -> None:
        """Take over shards with their backlog; let go of others with what has not started."""
        if (self.members, self.shards) == self._followed:
            return
        self._followed = self.members, self.shards
        others = (node for node in self.members if node.lease != self.lease)
        me = replace(self.keeper.node, opened=float("inf"))
        before, self.shards_owned = (
            self.shards_owned,
            owned_shards(self.name, {BASE: self.shards}, (*others, me), self.rings),
        )
        if lost := before - self.shards_owned:
            self.world.trace("lets go", self.lease, sorted(lost))
            queue_of = self.world.broker.layout.queue
            self._give_back([claim for claim in self.reserved.values() if queue_of(claim.source) in lost])

    def _give_back(self, unstarted: Iterable[Claim]) -> None:
        for claim in sorted(unstarted, key=_number, reverse=True):
            del self.reserved[claim.id]
            self.outbox[claim.id] = Settlement(claim.id, Ending.RELEASE)

    @property
    def consumes(self) -> bool:
        """Whether it takes messages from its shards."""
        idle = self.dead or self.gone or self.leaving or self.wedged
        return not idle and self.opened and not self.keeper.over

    def _receive(self, claim: Claim) -> None:
        """Rule 15: a suspect is not opened beside others; what comes after it goes back."""
        if _HINT in claim.payload and suspected(headers(claim.payload)):
            del self.reserved[claim.id]
            if self.hopeless(claim):
                self.condemn(claim)
            else:
                self.aside[claim.id] = claim
        elif self.hopeless(claim):
            del self.reserved[claim.id]
            self.condemn(claim)
        elif self.aside:
            del self.reserved[claim.id]
            self.outbox[claim.id] = Settlement(claim.id, Ending.RELEASE)
        else:
            self._open(claim)
            if claim.started:
                del self.reserved[claim.id]
                self._launch(claim)

    def hopeless(self, claim: Claim) -> bool:
        """Rule 15: whether it was started as often as it may be."""
        return _COUNTED in claim.payload and attempts(headers(claim.payload)) >= MAX_DELIVERIES

    def condemn(self, claim: Claim) -> None:
        """Rule 15: tell first, off the loop, then to the dead letters."""
        self.condemned[claim.id] = claim
        self.world.kernel.spawn(self, self._give_up, claim)

    def _give_up(self, claim: Claim) -> None:
        self.world.tell(self.world.ledger.message(claim.payload))
        if self.condemned.pop(claim.id, None) is not None:
            self.outbox[claim.id] = Settlement(claim.id, Ending.DEAD)

    def _open(self, claim: Claim) -> None:
        message = self.world.ledger.message(claim.payload)
        self.world.ledger.opened.add(message.number)
        if message.deadly:
            self.world.poison(self)

    def _open_suspects(self, lease: str) -> None:
        """Rule 15: alone, and marked started before it is opened."""
        while self.aside and not self.children:
            claim = self.aside.pop(next(iter(self.aside)))
            if self.ask_start(lease, claim):
                self._open(claim)
                self._launch(claim)

    def ask_start(self, lease: str, claim: Claim) -> bool:
        """Rule 1: before a body runs, the broker marks the attempt started."""
        owed = tuple(self.outbox.values())
        done = self.broker.start(lease, claim.id, settle=owed)
        if done:
            self._confirmed(owed)
        return bool(done)

    def may_run(self) -> bool:
        """Rule 1: the process that runs the body looks at the trust deadline last."""
        return self.keeper.trusted

    def _launch(self, claim: Claim) -> None:
        if claim.lease != self.lease:
            return
        if not self.may_run():
            self.outbox[claim.id] = Settlement(claim.id, Ending.DEFER)
            self.reserved[claim.id] = replace(claim, started=False)
            return
        task = self.world.ledger.message(claim.payload).task
        if task in self.revoked:
            self.dropped[claim.id] = task
            self.outbox[claim.id] = Settlement(claim.id, Ending.ACK)
            return
        self.world.revoking.check(self, task)
        self.world.ledger.launch(claim, self, self.world.broker)
        self.children[claim.id] = Child(self, claim)

    def reconcile(self, lease: str) -> None:
        """Rule 2: read what the broker has in flight for us, give back what we do not know."""
        if self.world.plain.beside:
            self.restore_unacked()
        if self.world.sharding.on:
            self.shards = self.widest(opening=False)
        if self.world.revoking.on:
            self.deaf = True
            self.began = min(self.began, self.world.kernel.now)
            self.read_revocations()
            self.deaf = False
        if self.world.apart:
            self._free_leftovers(lease)
        known = {*self.reserved, *self.aside, *self.condemned, *self.children, *self.outbox}
        held = self.broker.held(lease)
        for claim in sorted(set(held) - known, key=lambda claim: int(claim.rpartition(".")[2]), reverse=True):
            self.outbox[claim] = Settlement(claim, Ending.RELEASE)
        for claim in [claim for claim in self.reserved if claim not in held]:
            del self.reserved[claim]
        self.reconcile_at = self.clock() + RECONCILE

    def read_revocations(self) -> None:
        """Rule 19: learn what was revoked while it did not listen, before it consumes."""
        self.revoked |= self.revocations.current()

    @property
    def listens(self) -> bool:
        """Whether a broadcast reaches it."""
        return self.consumes and not self.frozen and self.cut_until <= self.world.kernel.now

    def restore_unacked(self) -> None:
        """Rule 16: what dead plain workers held comes back at the user's timeout."""
        self.world.plain.restore()

    def _free_leftovers(self, lease: str) -> None:
        """Locks of attempts that are over here: a store that lost its last writes has a released lock again."""
        found = self.locks.claims(lease)
        known = {*self.reserved, *self.aside, *self.condemned, *self.children, *self.outbox, *self.to_free}
        if left := tuple(sorted(found - known)):
            self.free(left)

    def _confirmed(self, owed: tuple[Settlement, ...]) -> None:
        for item in owed:
            if self.outbox.get(item.claim) is item:
                del self.outbox[item.claim]
                if item.ending is not Ending.DEFER:
                    self.to_free.append(item.claim)

    def _free(self, lease: str) -> None:
        """Rule 5: the end of a claim frees its locks."""
        if self.to_free and lease == self.lease:
            claims = tuple(self.to_free)
            self.free(claims)
            self.to_free = [claim for claim in self.to_free if claim not in claims]

    def free(self, claims: tuple[str, ...]) -> None:
        tasks = tuple(self.dropped[claim] for claim in claims if claim in self.dropped)
        self.locks.ended(claims, tasks)

    def _refused(self, lease: str) -> None:
        if lease == self.lease:
            self.keeper.refused()
            self.reconcile_at = 0.0

    def child_done(self, child: Child, outcome: str) -> None:
        """A body ended, or its child died and was reaped."""
        if self.children.get(child.claim.id) is not child:
            return
        del self.children[child.claim.id]
        if outcome == "gone":
            return
        payload = None
        if outcome in ("lost", "killed"):
            payload = redelivered(child.claim.payload, started=True)
        ending = Ending.ACK if outcome == "ok" else Ending.RELEASE
        self.outbox[child.claim.id] = Settlement(child.claim.id, ending, payload=payload)
        if not self.dead:
            self.main_thread.wake()

    def lease_of(self, child: Child) -> str:
        """Rule 11: a child acts for the lease of its request."""
        return child.claim.lease

    def child_may_write(self, child: Child) -> bool:
        """Rule 13: publishes and results from inside a task check the claim first."""
        return bool(child.broker.start(child.claim.lease, child.claim.id))

    def _rejoin(self) -> None:
        """The zombie's way back: kill what runs, drop what is reserved, take a new lease."""
        if self.leaving:
            self._end()
            self.world.kernel.exit()
        self._drop_children()
        self.world.rabbit.cut(self.lease)
        self._new_lease()
        self.keeper_thread.wake()

    def _drop_children(self) -> None:
        for child in self.children.values():
            # A thread cannot be killed: it goes on under the lease of its request (rule 11).
            child.dead = not self.threads_pool
        self.children = {}

    # Ends.

    def _leave(self) -> None:
        """Give back what has not started, finish what runs for a while, close the lease (rule 7)."""
        kernel, lease = self.world.kernel, self.lease
        if self.world.sharding.on:
            self.give_shards_away()
            self.world.sharding.expect_handed_over(self, LEFT)
        unstarted = [*self.reserved.values(), *self.aside.values(), *self.condemned.values()]
        for claim in sorted(unstarted, key=_number, reverse=True):
            self.outbox[claim.id] = Settlement(claim.id, Ending.RELEASE)
        self.reserved, self.aside, self.condemned = {}, {}, {}
        deadline = self.clock() + self.world.rng.choice([0.0, 1.0, 4.0])
        while self.children and self.clock() < deadline:
            self.pulse = self.clock()
            kernel.sleep(0.2)
        owed = tuple(self.outbox.values())
        if owed and self.broker.settle(lease, owed):
            self._confirmed(owed)
            self._free(lease)
        for child in self.children.values():
            child.dead = True
        self.gone = True
        self.world.trace("goodbye", lease, self.keeper.goodbye())
        self._end()

    def give_shards_away(self) -> None:
        """A node that drains takes no shards: the others take them at once, whatever runs here."""
        with contextlib.suppress(StoreUnavailable):
            self.keeper.offer(0, leaving=True)

    def _end(self) -> None:
        self.gone = True
        self.crash(disconnect=True)

    def crash(self, *, disconnect: bool) -> None:
        """Be gone from one moment to the next; a machine without power closes no connection."""
        if self.dead:
            return
        self.world.trace("dies", self.lease, disconnect)
        self.dead = True
        for child in self.children.values():
            child.dead = True
        if self.world.rabbit.on:
            self.world.after(0.0 if disconnect else HEARTBEAT, self.world.rabbit.cut, self.lease)
        if disconnect:
            self.lease_store.disconnect()
            self.court_store.disconnect()

    # What an invariant may forgive.

    def troubled(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _, _ in self.troubles)

    def excused(self, lease: str) -> bool:
        """Whether its being fenced is no false death."""
        if self.dead or self.gone or self.leaving or self.wedged or self.frozen or lease != self.lease:
            return True
        now = self.world.kernel.now
        recent = [item for item in self.troubles if item[2] > now - TTL - 3]
        silent = sum(to - since for kind, since, to in recent if kind != "drop")
        drops = [item for item in recent if item[0] == "drop"]
        if silent > TTL * 2 / 3 - 1.0 or any(to - since > 0.1 for _, since, to in drops):
            return True
        return bool(drops) and silent > 0.1


def _number(claim: Claim) -> int:
    return claim.number
