"""Somebody revokes tasks that wait: told to the workers that listen, kept in the store for those that do not (rule 19)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from celery_ha.errors import StoreUnavailable
from celery_ha.store.memory import MemoryStore
from tests.simulation.faults import CHAOS
from tests.simulation.ledger import Message, Violation
from tests.simulation.network import Wire

if TYPE_CHECKING:
    from tests.simulation.worker import Process
    from tests.simulation.world import World

#: How many seeds have revocations, and how many they have.
REVOKED, TIMES = 0.2, 3
#: Seconds for which the store remembers one.
REMEMBERED = 600.0


class Revoking:
    """What was revoked in one seed, and who had to know.

    Args:
        world: whose.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"{world.seed}-revoking")
        self.on = self._rng.random() < REVOKED
        #: Tasks, each with the time since which the store has it; None: nobody has written it down.
        self.tasks: dict[str, float | None] = {}
        #: What waits, as far as it is known here.
        self._published: dict[str, int] = {}

    def start(self) -> None:
        if self.on:
            self._world.kernel.spawn(self._world.me, self._run)

    def published(self, message: Message) -> None:
        self._published[message.task] = message.number

    def forgotten(self) -> None:
        """The store has lost what it was told last."""
        self.tasks.update(dict.fromkeys(self.tasks))

    def check(self, process: Process, task: str) -> None:
        """A body is about to run.

        Raises:
            Violation: its worker came after the revocation, and could have read it.
        """
        stored = self.tasks.get(task)
        if stored is not None and stored < process.began and not process.deaf:
            raise Violation(f"G6: {process.lease} runs {task}, which was revoked before it began to consume")

    def remember(self, process: Process, task: str) -> None:
        """What a worker that hears of it does, until the store answers."""
        store = MemoryStore(self._world.store, process.clock)
        revocations = Wire(process, store.revocations, store)
        while True:
            try:
                revocations.remember([task], REMEMBERED)
                break
            except StoreUnavailable:
                self._world.kernel.sleep(0.3)
        if self._world.store.memory.revoked.get(task):
            self.tasks[task] = self._world.kernel.now

    def _run(self) -> None:
        kernel = self._world.kernel
        for at in sorted(self._rng.uniform(1.0, CHAOS) for _ in range(TIMES)):
            kernel.sleep(at - kernel.now)
            runs = self._world.ledger.runs
            if waiting := [task for task, number in self._published.items() if not runs[number]]:
                self._tell(waiting[-1])

    def _tell(self, task: str) -> None:
        world = self._world
        world.trace("revoked", task)
        self.tasks.setdefault(task, None)
        for worker in world.workers:
            if worker.listens:
                worker.revoked.add(task)
                world.kernel.spawn(worker, self.remember, worker, task)
