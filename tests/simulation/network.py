"""How a simulated process reaches store and broker: over a network that fails, stalls and loses replies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim, Look
from celery_ha.store.memory import MemoryStore
from tests.simulation.kernel import Owner
from tests.simulation.ledger import effect

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds after which a client gives a call up and drops its connection.
SOCKET_TIMEOUT = 1.5


class Wire:
    """A port as one thread owner reaches it: every call goes through the faults."""

    def __init__(self, owner: Caller, target: Any, store: MemoryStore | None) -> None:
        self._owner, self._target, self._store = owner, target, store

    def __getattr__(self, name: str) -> Any:
        method, owner, store = getattr(self._target, name), self._owner, self._store
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            return owner.call(store, name, method, args, kwargs)

        self.__dict__[name] = call
        return call


class Caller(Owner):
    """Whoever makes port calls over a network that fails."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        #: Claims it requeued in the present round of judging.
        self.round: list[Claim] = []
        self.cut_until = 0.0

    def call(self, store: MemoryStore | None, name: str, method: Any, args: Any, kwargs: Any) -> Any:
        world = self.world
        started = self.clock()
        if not world.calm:
            world.call_fault(self, "before", name)
        if self._disturbed():
            self._reach(store, name, method, args, kwargs)
        world.ledger.moving = []
        result = method(*args, **kwargs)
        if name == "acquire":
            world.ledger.check_lease(*args, result, world.store, world.broker)
        if store is not None and world.replica is not None:
            world.replica.wait(self, name, result)
        if name == "requeue":
            self.round += world.ledger.moving
            world.ledger.check_order(self.round, world.broker)
        effect(world.ledger, name, args, result, world)
        if name == "look":
            result = self._looked(result, started)
        lost = not world.calm and world.call_fault(self, "after", name)
        if lost or (self._disturbed() and self._cut(store) > 0):
            world.trace("lost reply", self.name, name)
            self._disconnect(store)
            raise StoreUnavailable
        return result

    def _looked(self, look: Look, started: float) -> Look:
        """A round of judging begins, with a look that may have taken long."""
        self.round = []
        if look.started != started:
            look = replace(look, started=started)
        if self.world.slow_until > self.world.kernel.now:
            self.world.kernel.sleep(1.0)
            look = replace(look, ended=self.clock())
        return look

    def clock(self) -> float:
        return self.world.kernel.now

    def _disturbed(self) -> bool:
        """Whether there may be anything in the way of a call."""
        now = self.world.kernel.now
        return now < self.world.disturbed_until or now < self.cut_until

    def _cut(self, store: MemoryStore | None) -> float:
        """Seconds for which nothing is reached, or this server is not."""
        world = self.world
        return max(self.cut_until, world.outage_until, world.away[store is None]) - world.kernel.now

    def _stalled_until(self, store: MemoryStore | None) -> float:
        return max(self.world.stalled_until, self.world.stalled[store is None])

    def _reach(self, store: MemoryStore | None, name: str, method: Any, args: Any, kwargs: Any) -> None:
        """Wait through a stall of the server; give up at the socket timeout, which may be too late to matter."""
        world = self.world
        kernel = world.kernel
        give_up = kernel.now + SOCKET_TIMEOUT
        while (until := self._stalled_until(store)) > kernel.now and self._cut(store) <= 0:
            if until > give_up:
                kernel.sleep(give_up - kernel.now)
                if name in world.buffered and world.rng.random() < 0.5:
                    world.later(until, name, method, args, kwargs)
                self._disconnect(store)
                raise StoreUnavailable
            kernel.sleep(until - kernel.now)
        if self._cut(store) > 0:
            kernel.sleep(min(0.05, self._cut(store)))
            raise StoreUnavailable

    def _disconnect(self, store: MemoryStore | None) -> None:
        if store is not None:
            store.disconnect()
