"""How a simulated process reaches store and broker: over a network that fails, stalls and loses replies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim
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
        world, started = self.world, self.clock()
        lost = world.call_fault(self, "before", name)
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
            self.round = []
            if result.started != started:
                result = replace(result, started=started)
            if world.slow_until > world.kernel.now:
                world.kernel.sleep(1.0)
                result = replace(result, ended=self.clock())
        lost = world.call_fault(self, "after", name) or lost
        if lost or self._cut(store) > 0:
            world.trace("lost reply", self.name, name)
            self._disconnect(store)
            raise StoreUnavailable
        return result

    def clock(self) -> float:
        return self.world.kernel.now

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
