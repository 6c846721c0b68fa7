"""Who gets a lock: decisions on values, and the operations that make them so. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from celery_ha.model import Holder
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op, Write, absent
from celery_ha.store.zookeeper.records import Held, Lock, Waiter, dump_lock
from celery_ha.store.zookeeper.znodes import Entry, Paths, lock_key

#: Number of a slot.
Slot = int

#: What the znode under a lock is called that tells it from its namesakes, before its mark.
MARK = "mark-"
#: Where the answer of a lock's own write is in that of its transaction.
WRITTEN = 1


@dataclass(frozen=True)
class View:
    """A lock as it was read, and what its decisions depend on."""

    lock: Lock
    #: Of its znode; -1: there is none.
    version: int
    #: Bounds of the server's time at the reading.
    now: tuple[float, float]
    #: Names of those who stand in line, the first one first.
    line: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        return self.version >= 0

    def held(self, slot: Slot) -> Held | None:
        """Who has a slot now: its trust or ``max_hold`` is not over."""
        held = self.lock.slots.get(slot)
        return None if held is None or (held.until is not None and held.until <= self.now[0]) else held

    def free(self, limit: int) -> list[Slot]:
        """The slots that nobody has."""
        return [slot for slot in range(limit) if self.held(slot) is None]

    def own(self, holder: Holder, token: int | None = None, ask: str = "") -> Slot | None:
        """The slot that a holder has, by this grant if a token is given; that of this ask rather than of another."""
        found = None
        for slot in self.lock.slots:
            held = self.held(slot)
            if held is not None and held.holder == holder and token in {None, held.token}:
                if held.ask == ask:
                    return slot
                found = slot if found is None else found
        return found

    def due(self, task: str, limit: int, is_open: Collection[str]) -> Slot | None:
        """A slot in trust for a task, or held by an attempt of its own that has ended (rules 4 and 8)."""
        for slot in range(limit):
            held = self.held(slot)
            if held is not None and task and held.holder.task == task and held.holder.lease not in is_open:
                return slot
        return None

    def other(self, limit: int) -> Holder | None:
        """Somebody who has it."""
        holders = [held.holder for slot in range(limit) if (held := self.held(slot)) is not None]
        return holders[0] if holders else None

    def granted(self, slot: Slot, waiter: Waiter) -> Lock:
        """The lock after a grant. One write grants one slot: its own number becomes the token."""
        return self.lock.with_slot(slot, Held(waiter.holder, waiter.inherit, lasting=waiter.max_hold, ask=waiter.ask))

    def entrusted(self, slot: Slot, task: str) -> Lock:
        """The lock after a slot became ownerless, to be kept for a task (rule 8)."""
        held = self.lock.slots[slot]
        until = self.now[1] + held.inherit
        return self.lock.with_slot(slot, Held(Holder("", "", task), held.inherit, until, held.token))

    def without_expired(self) -> Lock:
        """The lock without what became free by itself."""
        lock = self.lock
        for slot in self.lock.slots:
            if self.held(slot) is None:
                lock = lock.without(slot)
        return lock


def write(paths: Paths, view: View, after: Lock, *, stays: bool) -> list[Op]:
    """Make a lock what was decided, if it still is what the decision was made on.

    Whoever is granted a slot must have an open lease, and a claim whose end was not told. The indices
    follow in the same transaction, so they never disagree with the lock.

    Args:
        paths: where our znodes are.
        view: the lock as it was.
        after: what becomes of it.
        stays: somebody stands in line, so its znode stays though nobody holds it.
    """
    path = paths.lock(lock_key(view.lock.name))
    mark = f"{path}/{MARK}{view.lock.mark}"
    ops: list[Op]
    if not view.there:
        # Written twice: only a write answers with the number that becomes the token.
        ops = [Create(path), Write(path, dump_lock(after), 0), Create(mark)]
    elif after.slots or stays:
        ops = [Check(mark), Write(path, dump_lock(after), view.version)]
    else:
        ops = [Delete(mark), Delete(path, view.version)]
    before = view.lock.slots
    changed = [slot for slot in {*before, *after.slots} if before.get(slot) != after.slots.get(slot)]
    for slot in changed:
        if (old := before.get(slot)) is not None:
            ops += [Delete(entry) for entry in _entries(paths, view.lock.name, slot, old)]
        if (new := after.slots.get(slot)) is not None:
            ops += _conditions(paths, new)
            ops += [Create(entry) for entry in _entries(paths, view.lock.name, slot, new)]
    return ops


def _conditions(paths: Paths, held: Held) -> list[Op]:
    if not held.holder.lease:
        return []
    return [Check(paths.lease(held.holder.lease)), *absent(paths.end(held.holder.claim))]


def _entries(paths: Paths, name: str, slot: Slot, held: Held) -> Iterator[str]:
    """Where the indices say so: what a lease holds, and what becomes free by itself."""
    key = lock_key(name)
    if held.holder.lease:
        yield f"{paths.hand(held.holder.lease)}/{Entry(held.holder.claim, slot, key)}"
    if held.ends:
        yield f"{paths.at('due')}/{Entry(held.holder.task, slot, key)}"
