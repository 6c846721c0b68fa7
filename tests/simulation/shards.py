"""The sharded queue of a seed: who believes in how many shards, who publishes where, who consumes what.

The number of shards is a setting, and a roll-out changes it: nodes and producers of two settings are there
at the same time, and producers that know nothing of shards (rule 16).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from celery_ha.keys import shard_name, shard_names, shard_of
from tests.simulation.faults import CHAOS, DEPLOY, Plan
from tests.simulation.ledger import Violation

if TYPE_CHECKING:
    from tests.simulation.worker import Process
    from tests.simulation.world import World

BASE = "q"
#: How many seeds have shards, and how many of their messages come from producers that know none.
SHARDED, PLAIN = 0.35, 0.1
#: How many of them have nothing but a deploy.
DEPLOYED = 0.3
#: Seconds within which, at last, every shard has one consumer: two readings of the widest count, and looks.
SETTLE = 20.0
#: Seconds after which the shards of a node that was killed, or that has begun to leave, have another consumer.
KILLED, LEFT = 1.5, 0.8
#: Seconds within which a newcomer has its shards.
NEW = 1.5


class Sharding:
    """See above; a seed without shards has the base queue only.

    Args:
        world: whose.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        # Of its own, so that a seed without shards is the history it would be without this.
        self._rng = random.Random(f"{world.seed}-shards")
        self.on = self._rng.random() < SHARDED
        self._old = self._rng.choice([2, 3, 4])
        self._new = self._old + self._rng.choice([-1, 0, 0, 1, 3])

    def plan(self, drawn: Plan) -> Plan:
        """The faults of a seed; one with shards is more often one in which nodes just come and go."""
        return Plan.draw_gentle(self._rng, CHAOS, DEPLOY, 5) if self.on and self._rng.random() < DEPLOYED else drawn

    def setting(self) -> int:
        """The number of shards in the settings of a node or producer that starts now."""
        started = self._world.kernel.now > 0
        return self._new if self._rng.random() < (0.7 if started else 0.2) else self._old

    def publish_to(self, shards: int, task: str) -> str:
        """The queue for a message. Where the number of shards grows, workers come first, then producers."""
        if not self.on or self._rng.random() < PLAIN:
            return BASE
        if shards > self._world.broker.shards.get(BASE, 0):
            shards = min(self._old, self._new)
        return shard_name(BASE, shard_of(task, shards))

    def expect_handed_over(self, process: Process, within: float) -> None:
        """Look, so many seconds later, whether others consume what a node had that leaves or is gone."""
        if self.on and self._world.gentle and not self._unnoticed(process):
            self._world.after(within, self._check_handed_over, process, process.shards_owned, within, self._gone())

    def _unnoticed(self, process: Process) -> bool:
        """Whether somebody else is dead and still a member: what he inherits waits until that is noticed."""
        others = (worker for worker in self._world.workers if worker is not process)
        return any(other.dead and self._world.store.is_open(other.lease) for other in others)

    def _check_handed_over(self, process: Process, shards: frozenset[str], within: float, gone: int) -> None:
        if gone < self._gone() or not self._world.seasoned(within) or not self._agreed(within):
            return  # the next one has gone too, nobody was there to see it, or shards move to a newcomer
        if left := sorted(shards - self._consumed()):
            raise Violation(f"handover: {within} s after {process.lease} went nobody else consumes {left}")

    def _agreed(self, within: float) -> bool:
        """Whether all know the largest number of shards, and nobody has come since, or just before."""
        if any(worker.born > self._world.kernel.now - within - NEW for worker in self._world.workers):
            return False
        return {worker.shards for worker in self._consumers()} == {self._world.broker.shards[BASE]}

    def _gone(self) -> int:
        return sum(worker.dead + worker.leaving for worker in self._world.workers)

    def settled(self) -> bool:
        """Whether each shard that is in anybody's settings has one consumer."""
        if not self.on:
            return True
        owners = [shard for worker in self._consumers() for shard in worker.shards_owned]
        return sorted(owners) == sorted(shard_names(BASE, self._world.broker.shards.get(BASE, 0)))

    def check_settled(self) -> None:
        if not self.settled():
            owners = {worker.lease: sorted(worker.shards_owned) for worker in self._consumers()}
            raise Violation(f"handover: no shard has one consumer after {SETTLE} s, but {owners}")

    def _consumed(self) -> frozenset[str]:
        return frozenset().union(*(worker.shards_owned for worker in self._consumers()))

    def _consumers(self) -> list[Process]:
        return [worker for worker in self._world.workers if worker.consumes]
