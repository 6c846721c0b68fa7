"""Tells a running body that its lock is gone.

One thread a process looks four times a second at what the process knows by itself: whether ``max_hold``
is over, whether the lease is given up. That costs the store nothing, however many locks are held.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep

from billiard import current_process

from celery_ha.errors import LockLost
from celery_ha.locks.lock import Lock
from celery_ha.locks.terms import OnLost

#: Seconds between two looks.
LOOK_EVERY = 0.25


@dataclass(eq=False)
class _Watch:
    locks: Sequence[Lock]
    on_lost: OnLost
    #: Whether the lease is given up, as far as this process knows.
    given_up: Callable[[], bool]
    thread: int


class _Watcher:
    """The watches of one process; its thread runs while there are any."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mutex = threading.Lock()
        self._watches: list[_Watch] = []
        self._runs = False

    def add(self, watch: _Watch) -> None:
        with self.mutex:
            self._watches.append(watch)
            if not self._runs:
                threading.Thread(target=self._run, name="ha-locks", daemon=True).start()
                self._runs = True

    def remove(self, watch: _Watch) -> None:
        """Not told anything any more once this returns."""
        with self.mutex:
            if watch in self._watches:
                self._watches.remove(watch)

    def _run(self) -> None:
        while True:
            sleep(LOOK_EVERY)
            with self.mutex:
                for watch in [watch for watch in self._watches if _is_lost(watch)]:
                    self._watches.remove(watch)
                    _tell(watch)
                if not self._watches:
                    self._runs = False
                    return


_watcher = _Watcher()


def _of_this_process() -> _Watcher:
    """A forked child has no thread of its parent's, and may have inherited a taken mutex."""
    global _watcher  # noqa: PLW0603 - one a process
    if _watcher.pid != os.getpid():
        _watcher = _Watcher()
    return _watcher


@contextmanager
def watched(locks: Sequence[Lock], on_lost: OnLost, given_up: Callable[[], bool]) -> Iterator[None]:
    """Watch these locks while the block runs.

    Args:
        locks: held by this thread.
        on_lost: what to do when one is gone; see :func:`~celery_ha.locks.task.locked_task`.
        given_up: whether their lease is, as far as this process knows.
    """
    if not locks:
        yield
        return
    watch = _Watch(locks, on_lost, given_up, threading.get_ident())
    watcher = _of_this_process()
    try:
        watcher.add(watch)
        yield
    finally:
        watcher.remove(watch)


def _is_lost(watch: _Watch) -> bool:
    now, given_up = monotonic(), watch.given_up()
    for lock in watch.locks:
        if given_up or now >= lock.held_until:
            lock.lost = True
    return any(lock.lost for lock in watch.locks)


def _tell(watch: _Watch) -> None:
    """Do as was asked for. **Failure:** a body that hangs outside of Python hears of it when it comes back."""
    for lock in watch.locks:
        if lock.lost:
            over = monotonic() >= lock.held_until
            why = "its max_hold is over" if over else "its lease was given up"
            with suppress(LockLost):  # being released just now: that tells
                lock.report.lost(lock, lock.token, "max_hold" if over else "fenced", why)
    if watch.on_lost == "kill" and current_process().daemon:
        os.kill(os.getpid(), signal.SIGKILL)
    elif watch.on_lost != "flag":
        # https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(watch.thread), ctypes.py_object(LockLost))
