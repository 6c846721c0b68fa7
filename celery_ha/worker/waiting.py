"""What waits for a slot of a pool of greenlets, where there is no loop to keep it.

Celery gives such a pool whatever comes, and spawning the next greenlet waits for one to end: what waits there is marked
as started (rule 1), and holds up whoever spawns it, the consumer itself or the timer of an ETA.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from celery_ha.worker.slots import Slots

#: Seconds between two looks for slots while something waits: a greenlet that is killed tells nobody.
LOOK_EVERY = 1.0


class Waiting:
    """Stands in for ``WorkController.process_task``.

    Another greenlet may come in here while a start is asked for; a request takes its slot before that.

    **Failure:** what waits here is not marked as started: dying leaves it to recovery as what was merely prefetched. A
    request that cannot be processed raises, and the others have their turn at the next look.

    Args:
        process: the worker's own.
        slots: of the pool.
        later: runs a function after some seconds, in a greenlet that is not the pool's: those have a slot to their end.
    """

    def __init__(
        self, process: Callable[[Any], None], slots: Slots, later: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        self._process = process
        self._slots = slots
        self._later = later
        self._waiting: deque[Any] = deque()
        self._looks = False

    def __call__(self, request: Any) -> None:
        self._waiting.append(request)
        try:
            self._drain()
        finally:
            self._look_later()

    def freed(self) -> None:
        """A slot is free, or will be in a moment."""
        if self._waiting:
            self._later(0.0, self._drain)

    def clear(self) -> int:
        """After a reconnect nothing of the old connection comes; returns how many slots to give back: none."""
        self._waiting.clear()
        return 0

    def settle(self) -> None:
        """What waits is given back."""

    def _look(self) -> None:
        self._looks = False
        try:
            self._drain()
        finally:
            self._look_later()

    def _look_later(self) -> None:
        if self._waiting and not self._looks:
            self._looks = True
            self._later(LOOK_EVERY, self._look)

    def _drain(self) -> None:
        while self._waiting and self._slots.free():
            request = self._waiting.popleft()
            self._slots.take(request)
            self._process(request)
