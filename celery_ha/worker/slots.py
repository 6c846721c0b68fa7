"""The slots of a pool that takes whatever it is given, and lets it wait for a thread.

What waits in there would count as started (rule 1) although it has not: if the worker died, an attempt would be
counted of each (G7). So a pool that has no slots of its own gets no more than it can run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import state


class Slots:
    """Counts what the pool was given and what is not over; on the loop's thread.

    Args:
        size: how many it runs at a time.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._given: list[Any] = []

    def free(self) -> int:
        """How many more it would run at once."""
        # Threads of the pool end requests meanwhile; Celery forgets them, whatever became of them.
        self._given = [
            request for request in self._given if request in state.reserved_requests or request in state.active_requests
        ]
        return max(0, self._size() - len(self._given))

    def take(self, request: Any) -> None:
        """The pool is given this one."""
        self._given.append(request)


def slots_of(pool: Any) -> int:
    """How many tasks a pool runs at a time; Celery 5.6 takes for it what a pool of greenlets runs just now."""
    try:
        return int((pool.limit if pool.is_green else pool.num_processes) or 1)
    except AttributeError:  # a prefork pool that is closed, while timers still go off
        return 0
