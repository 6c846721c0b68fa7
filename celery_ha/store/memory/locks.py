"""Locks that belong to a lease, in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.memory.server import HeldLock, Line, Slot, Waiter

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore

#: Seconds between two looks of a caller that waits.
LOOK_AGAIN = 0.005


class MemoryLocks(LockStore):
    """Locks in memory; see :class:`~celery_ha.store.base.LockStore`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def acquire(
        self,
        name: str,
        holder: Holder,
        *,
        inherit: float,
        limit: int = 1,
        max_hold: float | None = None,
        wait: float = 0.0,
    ) -> Grant:
        deadline = time.monotonic() + wait
        waiter = Waiter(holder, inherit, max_hold)
        with self._client.call() as server:
            answer = _ask(server, name, waiter, limit)
            if answer.holder is not None and wait > 0:
                stand_in_line(server, name, limit, waiter)
        while answer.token is None and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN)
            with self._client.call() as server:
                if waiter.token is not None:
                    return _granted(server, name, waiter)
                if server.is_fenced(holder.lease) or server.has_ended(holder.claim):
                    break
                if answer.holder is None:
                    answer = _ask(server, name, waiter, limit)
        with self._client.call() as server:
            line = server.memory.lines.get(name)
            if line is not None and waiter in line.waiters:
                line.waiters.remove(waiter)
                _leave_line(server, name)
            return answer if waiter.token is None else _granted(server, name, waiter)

    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        with self._client.call() as server:
            if not server.is_open(holder.lease):
                return None
            slot = held_slot(server, name, holder, token)
            if slot is not None:
                free_lock(server, slot)
            return slot is not None

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        with self._client.call() as server:
            return held_slot(server, name, holder, token) is not None

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        with self._client.call() as server:
            return end_claims(server, claims, tasks)

    def claims(self, lease: str) -> frozenset[str]:
        with self._client.call() as server:
            return frozenset(lock.holder.claim for lock in server.memory.locks.values() if lock.holder.lease == lease)

    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        with self._client.call() as server:
            if server.is_open(lease):
                return 0
            locks = server.memory.locks
            slots = [slot for slot in tuple(locks) if (lock := _current(server, slot)) and lock.holder.lease == lease]
            for slot in slots:
                lock = locks[slot]
                task = restarted.get(lock.holder.claim, "")
                if task and lock.inherit > 0:
                    _entrust(server, slot, task, lock.inherit)
                else:
                    free_lock(server, slot)
            return len(slots)

    def waiting(self, name: str) -> int:
        with self._client.call() as server:
            line = server.memory.lines.get(name)
            return 0 if line is None else len(line.waiters)

    def sweep(self) -> int:
        with self._client.call() as server:
            return sum(serve_line(server, name, line.limit) for name, line in tuple(server.memory.lines.items()))


def _ask(server: MemoryServer, name: str, waiter: Waiter, limit: int) -> Grant:
    """Take the best slot: our own, one that is due to us, a free one; those in line have the free ones first."""
    holder = waiter.holder
    if not server.is_open(holder.lease) or server.has_ended(holder.claim):
        return Grant(None)
    slots = [(name, number) for number in range(limit)]
    for slot in slots:
        lock = _current(server, slot)
        if lock is not None and lock.holder == holder:
            return Grant(lock.token, again=True, until=_ends(server, lock))
    due = next((slot for slot in slots if is_due_to(server, slot, holder.task)), None)
    if due is None:
        serve_line(server, name, limit)
        due = next((slot for slot in slots if isfree_lock(server, slot)), None)
    if due is None:
        return Grant(None, next(lock.holder for slot in slots if (lock := _current(server, slot))))
    if _is_quiet(server):
        return Grant(None)
    before = server.memory.locks.get(due)
    since = None if before is None else before.since
    token = _grant(server, due, waiter)
    in_line = None if since is None else server.now() - since
    return Grant(token, in_line=in_line, until=_ends(server, server.memory.locks[due]))


def _granted(server: MemoryServer, name: str, waiter: Waiter) -> Grant:
    """What a caller in line was granted, perhaps a while ago."""
    held = (lock for slot, lock in server.memory.locks.items() if slot[0] == name and lock.token == waiter.token)
    lock = next(held, None)
    return Grant(waiter.token, until=time.monotonic() if lock is None else _ends(server, lock))


def _ends(server: MemoryServer, lock: HeldLock) -> float | None:
    """Local monotonic time at which a lock is free by itself."""
    return None if lock.until is None else time.monotonic() + lock.until - server.now()


def _grant(server: MemoryServer, slot: Slot, waiter: Waiter) -> int:
    token = server.next_token()
    until = None if waiter.max_hold is None else server.now() + waiter.max_hold
    server.memory.locks[slot] = HeldLock(waiter.holder, token, waiter.inherit, until)
    return token


def _entrust(server: MemoryServer, slot: Slot, task: str, inherit: float, since: float | None = None) -> None:
    """Keep it, ownerless, for a task (rule 8)."""
    token = server.memory.token
    server.memory.locks[slot] = HeldLock(Holder("", "", task), token, inherit, server.now() + inherit, since)


def free_lock(server: MemoryServer, slot: Slot) -> None:
    """Free a slot and hand it on."""
    del server.memory.locks[slot]
    _hand_on(server, slot)


def _hand_on(server: MemoryServer, slot: Slot) -> bool:
    """Give a free slot to the first in line that can take it (rule 9)."""
    name, _ = slot
    line = server.memory.lines.get(name)
    while line is not None and line.waiters:
        waiter = line.waiters[0]
        if waiter.wake is None and _is_quiet(server):
            return False
        line.waiters.popleft()
        _leave_line(server, name)
        if waiter.wake is not None:
            _entrust(server, slot, waiter.holder.task, waiter.inherit, waiter.since)
            waiter.wake()
            return True
        if server.is_open(waiter.holder.lease) and not server.has_ended(waiter.holder.claim):
            waiter.token = _grant(server, slot, waiter)
            return True
    return False


def serve_line(server: MemoryServer, name: str, limit: int) -> int:
    """Hand on every slot of a lock that is free; returns how many."""
    return sum(isfree_lock(server, (name, number)) and _hand_on(server, (name, number)) for number in range(limit))


def stand_in_line(server: MemoryServer, name: str, limit: int, waiter: Waiter) -> None:
    """To the end of the line."""
    server.memory.lines.setdefault(name, Line(limit)).waiters.append(waiter)


def end_claims(server: MemoryServer, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
    """Free the locks of claims that ended, and what is in trust for tasks that will not come back."""
    server.note_ended(claims)
    freed = [slot for slot, lock in server.memory.locks.items() if _is_over(server, lock, claims, tasks)]
    for slot in freed:
        free_lock(server, slot)
    return len(freed)


def _leave_line(server: MemoryServer, name: str) -> None:
    if not server.memory.lines[name].waiters:
        del server.memory.lines[name]


def _current(server: MemoryServer, slot: Slot) -> HeldLock | None:
    """The lock as it stands; one whose trust or ``max_hold`` is over is gone."""
    lock = server.memory.locks.get(slot)
    if lock is not None and lock.until is not None and lock.until <= server.now():
        del server.memory.locks[slot]
        return None
    return lock


def isfree_lock(server: MemoryServer, slot: Slot) -> bool:
    """Whether anybody may have it; one whose lease is neither open nor fenced is never settled."""
    lock = _current(server, slot)
    if lock is None:
        return True
    lease = lock.holder.lease
    stranded = bool(lease) and not server.is_open(lease) and not server.is_fenced(lease)
    if stranded:
        del server.memory.locks[slot]
    return stranded


def is_due_to(server: MemoryServer, slot: Slot, task: str) -> bool:
    """Rules 4 and 8: in trust for the task, or held by an attempt of its own that has ended.

    A lock whose lease is open has its claim in flight, or :meth:`MemoryLocks.ended` would have freed it.
    """
    lock = _current(server, slot)
    if lock is None or not task or lock.holder.task != task:
        return False
    return not (lock.holder.lease and server.is_open(lock.holder.lease))


def _is_quiet(server: MemoryServer) -> bool:
    return server.now() < server.memory.quiet_until


def held_slot(server: MemoryServer, name: str, holder: Holder, token: int) -> Slot | None:
    """Where this holder has the lock with this token, if its lease is open."""
    if not server.is_open(holder.lease):
        return None
    for slot, lock in tuple(server.memory.locks.items()):
        if slot[0] == name and (lock.holder, lock.token) == (holder, token) and _current(server, slot):
            return slot
    return None


def _is_over(server: MemoryServer, lock: HeldLock, claims: tuple[str, ...], tasks: tuple[str, ...]) -> bool:
    if not lock.holder.lease:
        return lock.holder.task in tasks
    return lock.holder.claim in claims and server.is_open(lock.holder.lease)
