"""A store whose server has a replica: what was not sent there is forgotten when the replica takes over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from celery_ha.errors import StoreUnavailable
from celery_ha.store.memory.server import Memory
from tests.simulation.ledger import TrackedStore

if TYPE_CHECKING:
    from tests.simulation.network import Caller

#: Rule 12: calls that answer only when the replica has what they wrote.
WAIT_FOR = frozenset({"fence", "depose", "refuse", "acquire"})
#: Seconds between two moments at which the replica has everything, and that a call waits for it at most.
LAG, ROUND_TRIP = 0.4, 0.05


class Replica:
    """The other server of a store.

    Args:
        store: the one that answers.
        rng: how long it takes.
    """

    def __init__(self, store: TrackedStore, rng: Any) -> None:
        self._store, self._rng = store, rng
        self._memory = _copy(store.memory)
        #: The master goes as soon as it has granted or fenced something: what happens then; None: not now.
        self.trap: Callable[[], None] | None = None

    def catch_up(self) -> None:
        """Everything that was written has arrived."""
        self._memory = _copy(self._store.memory)

    def take_over(self) -> None:
        """The master is gone with what it had not sent; clients find another server run."""
        self._store.memory = _copy(self._memory)
        self._store.restart()

    def wait(self, caller: Caller, name: str, result: Any) -> None:
        """Hold back the answer to a call until its write has arrived.

        Raises:
            StoreUnavailable: the master was gone before that.
        """
        if self.trap is not None and name in WAIT_FOR and _granted(name, result):
            spring, self.trap = self.trap, None
            caller.world.after(self._rng.uniform(0.0, 2 * ROUND_TRIP), spring)
        if not self.waits_for(name, result):
            return
        run = self._store.run
        caller.world.kernel.sleep(self._rng.uniform(0.0, ROUND_TRIP))
        if self._store.run != run:
            raise StoreUnavailable
        self.catch_up()

    def waits_for(self, name: str, result: Any) -> bool:
        return name in WAIT_FOR and _granted(name, result)


def _granted(name: str, result: Any) -> bool:
    return bool(result.token if name == "acquire" else result)


def _copy(memory: Memory) -> Memory:
    """All values in it are replaced when they change, so one level is enough."""
    kept = {each.name: getattr(memory, each.name) for each in fields(memory)}
    copied = {name: type(value)(value) for name, value in kept.items() if isinstance(value, (dict, set))}
    copied |= {name: deque(value, value.maxlen) for name, value in kept.items() if isinstance(value, deque)}
    return replace(memory, **copied)
