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
        self._switch = self.hub.switch
        self._heap: list[tuple[float, int, Thread, int]] = []
        self._made = 0
        self._threads: list[Thread] = []
        self.current: Thread | None = None

    def spawn(self, owner: Owner, run: Callable[..., Any], *args: Any) -> Thread:
        """Start a thread; it first runs when the caller waits."""
        thread = Thread(self, owner, run, args)
        self._threads.append(thread)
        self.schedule(thread, 0.0)
        return thread

    def schedule(self, thread: Thread, delay: float) -> None:
        """Let a thread run after a delay; replaces what it waited for."""
        thread.ticket += 1
        self._made += 1
        heapq.heappush(self._heap, (self.now + delay, self._made, thread, thread.ticket))

    def sleep(self, delay: float) -> None:
        """Let the running thread wait; others run meanwhile."""
        self._wait(self.current, delay)

    def nap(self, delay: float) -> None:
        """Let the running thread wait until its time has come or somebody wakes it."""
        thread = self.current
        assert thread is not None
        thread.napping = True
        self._wait(thread, delay)
        thread.napping = False

    def _wait(self, thread: Thread | None, delay: float) -> None:
        assert thread is not None
        self.schedule(thread, delay)
        self._switch()

    def exit(self) -> None:
        """End the running thread here and now, as a killed process ends: nothing is cleaned up."""
        raise greenlet.GreenletExit

    def thaw(self, owner: Owner) -> None:
        """Let a frozen owner go on."""
        owner.frozen = False
        late, owner.deferred = owner.deferred, []
        for thread in late:
            self.schedule(thread, 0.0)

    def close(self) -> None:
        """End all threads that still wait: no garbage collector sees what a switched-off greenlet refers to."""
        self._heap.clear()
        for thread in self._threads:
            if not thread.green.dead:
                thread.green.throw(greenlet.GreenletExit)
        self._threads.clear()

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Run everything up to a time, or until ``stop`` says so (asked about ten times a second)."""
        asked, heap, pop = self.now, self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            at, _, thread, ticket = pop(heap)
            owner, green = thread.owner, thread.green
            if ticket != thread.ticket or owner.dead or green.dead:
                continue
            self.now = max(self.now, at)
            if owner.frozen:
                owner.deferred.append(thread)
                continue
            self.current = thread
            green.switch()
            if stop is not None and self.now - asked > 0.1:
                asked = self.now
                if stop():
                    return
        self.now = max(self.now, until)
