"""A simulated attempt at a task: the child process or the thread that runs its body."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from celery_ha.brokers.memory import MemoryBroker
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim, Grant, Holder, Parked
from celery_ha.parking.memory import MemoryParking
from celery_ha.store.memory import MemoryStore
from tests.simulation.kernel import Thread
from tests.simulation.ledger import INHERIT
from tests.simulation.network import Caller, Wire
from tests.simulation.rabbit import ChildOfRabbit

if TYPE_CHECKING:
    from tests.simulation.worker import Process


class Child(Caller):
    """One attempt at a task, in a process or thread of its own."""

    def __init__(self, process: Process, claim: Claim) -> None:
        super().__init__(process.world, f"{process.name}/{claim.id}")
        self.process = process
        self.claim = claim
        self.message = self.world.ledger.message(claim.payload)
        self.store = MemoryStore(self.world.store, self.clock)
        self.locks = Wire(self, self.store.locks, self.store)
        rabbit = self.world.rabbit
        broker = ChildOfRabbit(rabbit, self.store) if rabbit.on else MemoryBroker(self.world.broker)
        self.broker = Wire(self, broker, None)
        self.parking = Wire(self, MemoryParking(self.store, self.world.broker), self.store)
        self.thread: Thread = self.world.kernel.spawn(self, self._run)

    def holder(self) -> Holder:
        return Holder(self.process.lease_of(self), self.claim.id, self.message.task)

    def _run(self) -> None:
        try:
            outcome = self._body()
        except StoreUnavailable:
            outcome = "failed"
        while self.process.frozen:
            self.world.kernel.sleep(0.5)
        if not self.process.dead:
            self.process.child_done(self, outcome)

    def _body(self) -> str:
        kernel, message, token = self.world.kernel, self.message, None
        kernel.sleep(message.duration)
        if message.fatal:
            self.world.kill(self)
        if message.lock is not None:
            grant = self._lock(message.lock)
            token = grant.token
            if token is None:
                return self._wait_in_line(message.lock, grant)
        kernel.sleep(message.duration / 2)
        if message.lock and token and not self.locks.holds(message.lock, self.holder(), token):
            return "lost"
        if not self.process.child_may_write(self):
            return "lost"
        self.world.ledger.result(self.claim, message.number, self.world.broker)
        if message.lock and token:
            with contextlib.suppress(StoreUnavailable):
                self.locks.release(message.lock, self.holder(), token)
        return "ok"

    def _wait_in_line(self, lock: str, grant: Grant) -> str:
        """What the main process does for it, where store and broker are one; else the message goes back."""
        kernel = self.world.kernel
        if self.world.parks and grant.holder is not None:
            kernel.sleep(self.world.rng.choice([0.0, 0.1, 0.5]))  # on its way to the main process
            with contextlib.suppress(StoreUnavailable):
                parked = self.parking.park(lock, self.holder(), limit=1, inherit=INHERIT)
                return "busy" if parked is Parked.DUE else "gone"
        kernel.sleep(0.5)
        return "busy"

    def _lock(self, name: str) -> Grant:
        try:
            return self._ask(name)
        except StoreUnavailable:
            self.world.kernel.sleep(0.2)
        return self._ask(name)

    def _ask(self, name: str) -> Grant:
        grant: Grant = self.locks.acquire(name, self.holder(), inherit=INHERIT)
        return grant
