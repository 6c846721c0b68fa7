"""Simulated time and simulated threads: greenlets that are switched only where one of them waits.

One seed, one history: events at the same time run in the order in which they were made.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import greenlet


class Owner:
    """What dies or stands still as one: a process, or a child of it."""

    def __init__(self) -> None:
        self.dead = False
        self.frozen = False
        self.deferred: list[Thread] = []


class Thread:
    """One simulated thread of an owner."""

    def __init__(self, kernel: Kernel, owner: Owner, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.owner = owner
        self.ticket = 0
        self.napping = False
        self._kernel = kernel
        self.green = greenlet.greenlet(lambda: run(*args), parent=kernel.hub)

    def wake(self) -> None:
        """End its nap, if it takes one."""
        if self.napping:
            self._kernel.schedule(self, 0.0)


class Kernel:
    """The clock and the queue of what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        self._heap: list[tuple[float, int, Thread, int]] = []
        self._made = 0
        self.current: Thread | None = None

    def spawn(self, owner: Owner, run: Callable[..., Any], *args: Any) -> Thread:
        """Start a thread; it first runs when the caller waits."""
        thread = Thread(self, owner, run, args)
        self.schedule(thread, 0.0)
        return thread

    def schedule(self, thread: Thread, delay: float) -> None:
        """Let a thread run after a delay; replaces what it waited for."""
        thread.ticket += 1
        self._made += 1
        heapq.heappush(self._heap, (self.now + delay, self._made, thread, thread.ticket))

    def sleep(self, delay: float) -> None:
        """Let the running thread wait; others run meanwhile."""
        thread = self.current
        assert thread is not None
        self.schedule(thread, delay)
        self.hub.switch()
        self.current = thread

    def nap(self, delay: float) -> None:
        """Let the running thread wait until its time has come or somebody wakes it."""
        thread = self.current
        assert thread is not None
        thread.napping = True
        self.sleep(delay)
        thread.napping = False

    def exit(self) -> None:
        """End the running thread here and now, as a killed process ends: nothing is cleaned up."""
        raise greenlet.GreenletExit

    def thaw(self, owner: Owner) -> None:
        """Let a frozen owner go on."""
        owner.frozen = False
        late, owner.deferred = owner.deferred, []
        for thread in late:
            self.schedule(thread, 0.0)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Run everything up to a time, or until ``stop`` says so (asked about ten times a second)."""
        asked = self.now
        while self._heap and self._heap[0][0] <= until:
            at, _, thread, ticket = heapq.heappop(self._heap)
            if ticket != thread.ticket or thread.owner.dead or thread.green.dead:
                continue
            self.now = max(self.now, at)
            if thread.owner.frozen:
                thread.owner.deferred.append(thread)
                continue
            self.current = thread
            thread.green.switch()
            if stop is not None and self.now - asked > 0.1:
                asked = self.now
                if stop():
                    return
        self.now = max(self.now, until)
