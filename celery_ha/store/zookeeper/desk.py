"""Where a lock is read, decided on and written: one transaction for each change."""

from __future__ import annotations

import secrets
from dataclasses import replace
from time import monotonic

from celery_ha.model import Grant
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.link import Link, children, exists, get
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op
from celery_ha.store.zookeeper.records import Lock, Waiter, dump_waiter, load_lock, load_waiter
from celery_ha.store.zookeeper.rules import WRITTEN, Slot, View, write
from celery_ha.store.zookeeper.znodes import Paths, lock_key

#: What those who stand in line are called, before their number.
IN_LINE = "line-"


class Desk:
    """Reads and changes single locks.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock) -> None:
        self._link = link
        self._paths = paths
        self._clock = clock

    def read(self, name: str) -> View:
        """A lock by its name."""
        return self.read_key(lock_key(name)) or View(Lock(name, secrets.token_hex(8)), -1, self._clock.read())

    def read_key(self, key: str) -> View | None:
        """A lock by its place; None: nobody holds it."""
        path = self._paths.lock(key)
        now = self._clock.read()
        # In this order: who joined before the lock was read is in the line, who joined later raised its version.
        found, under = self._link.ask(get(path), children(path))
        if found is None:
            return None
        data, stat = found
        line = [name for name in under or () if name.startswith(IN_LINE)]
        return View(load_lock(data, stat.mzxid, stat.mtime), stat.version, now, tuple(sorted(line, key=_number)))

    def grant(self, view: View, slot: Slot, waiter: Waiter, limit: int) -> int:
        """Give a slot to somebody; returns the token."""
        after = _with_limit(view.granted(slot, waiter), limit)
        ops = write(self._paths, view, after, stays=True)
        token: int = self._link.commit(*ops)[WRITTEN].mzxid
        return token

    def join(self, view: View, waiter: Waiter, limit: int) -> str:
        """Stand in line; returns the place.

        The lock is written too: whoever frees it meanwhile has to look at the line again.
        """
        ops = write(self._paths, view, _with_limit(view.lock, limit), stays=True)
        place = f"{self._paths.lock(lock_key(view.lock.name))}/{self.place_of(waiter)}"
        answers = self._link.commit(
            *ops,
            Check(self._paths.lease(waiter.holder.lease)),
            Create(place, dump_waiter(waiter), ephemeral=True, numbered=True),
        )
        made: str = answers[-1]
        return made

    def place_of(self, waiter: Waiter) -> str:
        """How the name of a caller's place in line begins.

        The number that follows is not enough: it begins again when the lock was free in between.
        """
        return f"{IN_LINE}{waiter.ask}-"

    def change(self, view: View, after: Lock, *more: Op) -> bool:
        """Write a lock of which slots were freed or entrusted, and hand a free one on; returns whether one was.

        Args:
            view: the lock as it was read.
            after: what becomes of it.
            more: further conditions.

        **Failure:** both are one step. Should more slots be free than one, the others are handed on by
        further steps, or by the sweep.
        """
        freed = View(after, view.version, view.now, view.line)
        free = freed.free(after.limit)
        first, passed, left = self._first(view) if free else (None, [], len(view.line))
        if first is not None:
            after = freed.granted(free[0], first)
        self._link.commit(*more, *passed, *write(self._paths, view, after, stays=left > 0))
        return first is not None

    def serve(self, key: str) -> int:
        """Drop what became free by itself and hand on every slot that is free; returns how many."""
        served = 0
        while True:
            view = self.read_key(key)
            if view is None:
                return served
            after = view.without_expired()
            nobody = not view.line or not view.free(after.limit)
            if nobody and after == view.lock and (after.slots or view.line):
                return served
            if not self.change(view, after):
                return served
            served += 1

    def open_leases(self, view: View, task: str) -> frozenset[str]:
        """Which of the leases under which this very task holds the lock are open."""
        leases = [held.holder.lease for held in view.lock.slots.values() if held.holder.task == task]
        leases = [lease for lease in leases if lease]
        stats = self._link.ask(*(exists(self._paths.lease(lease)) for lease in leases))
        return frozenset(lease for lease, stat in zip(leases, stats, strict=True) if stat is not None)

    def found(self, view: View, waiter: Waiter) -> Grant | None:
        """What a holder has already: by this very call, whose answer was lost, or by another of the same claim."""
        slot = view.own(waiter.holder, ask=waiter.ask)
        if slot is None:
            return None
        held = view.lock.slots[slot]
        now = monotonic()
        until = None if held.until is None else now + held.until - self._clock.read()[1]
        return Grant(held.token, again=held.ask != waiter.ask, until=until)

    def _first(self, view: View) -> tuple[Waiter | None, list[Op], int]:
        """The first in line that can take it, what to delete for that, and how many stay in line."""
        path = self._paths.lock(lock_key(view.lock.name))
        passed: list[Op] = []
        for at, name in enumerate(view.line, 1):
            (found,) = self._link.ask(get(f"{path}/{name}"))
            if found is None:
                continue
            data, stat = found
            waiter = load_waiter(data)
            lease, end = self._link.ask(
                exists(self._paths.lease(waiter.holder.lease)), exists(self._paths.end(waiter.holder.claim))
            )
            passed.append(Delete(f"{path}/{name}", stat.version))
            if lease is not None and end is None:
                return waiter, passed, len(view.line) - at
        return None, passed, 0


def _with_limit(lock: Lock, limit: int) -> Lock:
    return replace(lock, limit=limit)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
