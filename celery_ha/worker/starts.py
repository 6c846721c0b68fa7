"""Puts a task's start after the end of the one before it, so that both travel in one request.

Celery's pool frees a slot, and so starts the next task, just before it tells the worker that the last
one is done. A start that must be asked for (rule 1) waits for the loop's next turn instead; by then
the ack is noted and goes with the question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from celery_ha.worker.gate import claim_of


class Starts:
    """Stands in for ``WorkController._process_task``.

    Args:
        process: the worker's own.
        soon: runs a function on the loop's next turn.
        marked: whether this claim may start without asking.
    """

    def __init__(
        self,
        process: Callable[[Any], None],
        soon: Callable[[Callable[[], None]], Any],
        marked: Callable[[str], bool],
    ) -> None:
        self._process = process
        self._soon = soon
        self._marked = marked
        self._waiting: deque[Any] = deque()

    def __call__(self, request: Any) -> None:
        if not self._waiting and self._marked(claim_of(request)):
            self._process(request)
            return
        self._waiting.append(request)
        if len(self._waiting) == 1:
            self._soon(self._drain)

    def _drain(self) -> None:
        """One after the other; what is left after an error is drained by the next turn."""
        try:
            while self._waiting:
                self._process(self._waiting.popleft())
        finally:
            if self._waiting:
                self._soon(self._drain)

    def clear(self) -> int:
        """After a reconnect nothing of the old loop comes; returns how many starts were waiting."""
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped
