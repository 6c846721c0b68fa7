"""Locks that belong to a lease, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.memory.server import HeldLock

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore


class MemoryLocks(LockStore):
    """Locks in memory; see :class:`~celery_ha.store.base.LockStore`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def acquire(self, name: str, holder: Holder, *, inherit: float) -> Grant:
        with self._client.call() as server:
            if not server.is_open(holder.lease) or server.has_ended(holder.claim):
                return Grant(None)
            lock = _current(server, name)
            if lock is not None and lock.holder == holder:
                return Grant(lock.token, again=True)
            if lock is not None and not _may_take(server, lock, holder):
                return Grant(None, lock.holder)
            if server.now() < server.memory.quiet_until:
                return Grant(None)
            token = server.next_token()
            server.memory.locks[name] = HeldLock(holder, token, inherit)
            return Grant(token)

    def release(self, name: str, holder: Holder, token: int) -> bool:
        with self._client.call() as server:
            held = _holds(server, name, holder, token)
            if held:
                del server.memory.locks[name]
            return held

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        with self._client.call() as server:
            return _holds(server, name, holder, token)

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        with self._client.call() as server:
            server.note_ended(claims)
            locks = server.memory.locks
            freed = [name for name in locks if _ended(server, name, claims, tasks)]
            for name in freed:
                del locks[name]
            return len(freed)

    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        with self._client.call() as server:
            if server.is_open(lease):
                return 0
            locks = server.memory.locks
            names = [name for name, lock in locks.items() if lock.holder.lease == lease]
            for name in names:
                lock = locks.pop(name)
                task = restarted.get(lock.holder.claim, "")
                if task and lock.inherit > 0:
                    until = server.now() + lock.inherit
                    locks[name] = HeldLock(Holder("", "", task), lock.token, lock.inherit, until)
            return len(names)


def _current(server: MemoryServer, name: str) -> HeldLock | None:
    """The lock as it stands; one whose trust is over is gone."""
    lock = server.memory.locks.get(name)
    if lock is not None and lock.until is not None and lock.until <= server.now():
        del server.memory.locks[name]
        return None
    return lock


def _may_take(server: MemoryServer, lock: HeldLock, asking: Holder) -> bool:
    """Rules 4 and 8: whether a lock that somebody else has may be taken over."""
    if lock.holder.lease and server.is_open(lock.holder.lease):
        # Its claim is in flight under an open lease, or `ended` would have freed it.
        return False
    if asking.task and lock.holder.task == asking.task:
        return True
    # Another task waits for the settlement or the end of the trust. A lease that is
    # neither open nor fenced will never be settled.
    return bool(lock.holder.lease) and not server.is_fenced(lock.holder.lease)


def _holds(server: MemoryServer, name: str, holder: Holder, token: int) -> bool:
    lock = _current(server, name)
    return lock is not None and (lock.holder, lock.token) == (holder, token) and server.is_open(holder.lease)


def _ended(server: MemoryServer, name: str, claims: tuple[str, ...], tasks: tuple[str, ...]) -> bool:
    lock = server.memory.locks[name]
    if lock.until is not None:
        return lock.holder.task in tasks
    return lock.holder.claim in claims and server.is_open(lock.holder.lease)
