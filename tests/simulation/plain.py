"""Plain Celery beside ours, and after it: kombu's own workers on the base queue, and taking celery_ha out (rule 16).

Kombu's way: what a worker took is in ``unacked`` until its ack, and whoever consumes puts it back once it has been
there for the visibility timeout.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_ha.brokers.memory import MemoryBroker
from celery_ha.envelope import rerouted
from celery_ha.failover.recovery import reclaim
from celery_ha.keys import shard_names
from celery_ha.store.memory import MemoryStore
from tests.simulation.faults import CHAOS
from tests.simulation.kernel import Owner
from tests.simulation.ledger import Violation
from tests.simulation.shards import BASE

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How many seeds have plain workers beside ours, and in how many celery_ha is taken out at the end.
BESIDE, TAKEN_OUT = 0.1, 0.1
#: Seconds after which kombu restores what was not acknowledged.
VISIBILITY = 15.0
#: Seconds that an operator leaves to workers that stop, and to what is on its way to the broker.
GRACE = 6.0


@dataclass(frozen=True)
class Unacked:
    """What a plain worker took."""

    source: str
    payload: bytes
    since: float


class Plain:
    """The part of a seed that knows nothing of leases.

    Args:
        world: whose.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"{world.seed}-plain")
        self.beside = self._rng.random() < BESIDE and not world.rabbit.on
        self.taken_out = not (self.beside or world.rabbit.on) and self._rng.random() < TAKEN_OUT
        #: What plain workers hold, by their tags.
        self.unacked: dict[int, Unacked] = {}
        self._tags = 0

    def start(self) -> None:
        """Plain workers come, and go before everything is calm: stopped, or killed with what they hold."""
        for _ in range(2 if self.beside else 0):
            worker = PlainWorker(self._world, self)
            self._world.after(self._rng.uniform(3.0, CHAOS), worker.end, self._rng.random() < 0.5)

    def restore(self) -> None:
        """Kombu's ``restore_visible``: what has waited for its ack for too long is back in its queue."""
        due = [tag for tag, item in self.unacked.items() if item.since <= self._world.kernel.now - VISIBILITY]
        for tag in due:
            item = self.unacked.pop(tag)
            self._world.trace("restored", self._world.ledger.message(item.payload).number)
            self._world.broker.queue(item.source).appendleft(item.payload)

    def take(self) -> int | None:
        """A tag for the first message of the base queue; None: there is none."""
        broker = self._world.broker
        for source in broker.sources(BASE):
            if waiting := broker.queues.get(source):
                self._tags += 1
                self.unacked[self._tags] = Unacked(source, waiting.popleft(), self._world.kernel.now)
                return self._tags
        return None

    def take_out(self) -> None:
        """Stop all workers, one way or the other; give back what they held; plain ones do the rest.

        Raises:
            Violation: something was left where a plain worker does not look.
        """
        world = self._world
        for worker in world.workers:
            worker.leaving = True
            if self._rng.random() < 0.3:
                worker.crash(disconnect=self._rng.random() < 0.5)
        world.kernel.run(world.kernel.now + GRACE)
        for worker in world.workers:
            worker.crash(disconnect=True)
        world.kernel.run(world.kernel.now + 60.0, stop=lambda: all(producer.done for producer in world.producers))
        world.kernel.run(world.kernel.now + GRACE)
        world.ledger.is_open = lambda _lease: (
            False
        )  # the operator has made sure: whatever the store says, they are gone
        for _ in range(2):  # dying midway leaves each message in one place: it is run again
            self.uninstall()
        world.ledger.check_places(world.broker, world.store)
        there = {world.ledger.message(payload).number for payload in world.broker.waiting(BASE)}
        if left := world.ledger.accepted - world.ledger.acked - there:
            raise Violation(f"G8: celery_ha is out, and messages {sorted(left)} are where plain Celery does not look")
        for _ in range(2):
            PlainWorker(world, self)

    def uninstall(self) -> None:
        """What ``ha uninstall`` does; half of it now and then."""
        world = self._world
        broker = MemoryBroker(world.broker)
        leases = sorted(broker.strangers(frozenset()))
        self.give_back(leases[: self._rng.choice([1, len(leases)])], broker)
        world.store.pour()
        for shard in shard_names(BASE, world.broker.shards.get(BASE, 0)):
            self._merge(shard)
        if again := sorted(broker.strangers(frozenset())):
            self.give_back(again, broker)
            self.uninstall()

    def give_back(self, leases: list[str], broker: MemoryBroker) -> None:
        reclaim(leases, broker, MemoryStore(self._world.store).locks)

    def _merge(self, shard: str) -> None:
        broker = self._world.broker
        for source, target in zip(broker.sources(shard), broker.sources(BASE), strict=True):
            while waiting := broker.queues.get(source):
                broker.queue(target).append(rerouted(waiting.popleft(), BASE, BASE))


class PlainWorker(Owner):
    """A worker of kombu's own, one task at a time."""

    def __init__(self, world: World, plain: Plain) -> None:
        super().__init__()
        self._world, self._plain = world, plain
        self._stopping = False
        world.kernel.spawn(self, self._run)

    def end(self, killed: bool) -> None:
        self._world.trace("plain worker", "killed" if killed else "stopped")
        self.dead, self._stopping = killed, True

    def _run(self) -> None:
        world, ledger, unacked = self._world, self._world.ledger, self._plain.unacked
        while not self._stopping:
            tag = self._plain.take()
            if tag is None:
                world.kernel.sleep(1.0)
                continue
            message = ledger.message(unacked[tag].payload)
            world.trace("plain run", message.number)
            world.kernel.sleep(message.duration)
            if unacked.pop(tag, None) is not None:
                ledger.finished.add(message.number)
                ledger.acked.add(message.number)
