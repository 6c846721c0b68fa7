"""Puts a task's start after the end of the one before it, so that both travel in one request.

Celery's pool frees a slot, and so starts the next task, just before it tells the worker that the last
one is done. A start that must be asked for (rule 1) waits for the loop's next turn instead; by then
the ack is noted and goes with the question, and so do the other starts of that turn.

Where the broker can be asked without waiting, the loop turns on until the answer is there; what wants to
start meanwhile goes with the next question. To wait even a millisecond for it saves a turn and costs more,
measured: nothing else is read or written meanwhile. Only what has a slot is asked for: what waits for one
has not started, whatever becomes of this process (rule 15). To ask for it ahead, many at a time, was a fifth
faster on RabbitMQ with a prefetch multiplier of 4, but it then starts by a mark that may have gone: the
simulation found a machine that was suspended, given up meanwhile, and began what others had run. To have the process
that runs the body ask, right before it, was no faster: what the loop is spared costs that process as much, and a wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Any, Protocol

from celery_ha.model import Readable
from celery_ha.worker.gate import claim_of
from celery_ha.worker.slots import Slots


class Marking(Protocol):
    """Who marks attempts as started."""

    def marked(self, claim: str) -> bool:
        """Whether this claim may start without asking."""

    def ask(self, claims: Sequence[str]) -> Readable | None:
        """Ask for several marks; returns what can be read from when the answer is there, None: nothing was asked."""

    def answered(self) -> None:
        """Read the answer, waiting for it if it is not there."""


class Starts:
    """Stands in for ``WorkController._process_task``, and for its ``process_task`` where that does not wait for a slot.

    **Failure:** what waits here has not started, whatever becomes of this process (rule 15); of what was asked for,
    see :meth:`celery_ha.worker.custody.Custody.ask`.

    Args:
        process: the worker's own.
        hub: the worker's loop.
        claims: the marks.
        slots: of the pool; None: requests come here when they have one.
        ahead: several may be asked for at once.
    """

    def __init__(
        self,
        process: Callable[[Any], None],
        hub: Any,
        claims: Marking,
        *,
        slots: Slots | None = None,
        ahead: bool = False,
    ) -> None:
        self._process = process
        self._hub = hub
        self._claims = claims
        self._slots = slots
        self._ahead = ahead
        self._waiting: deque[Any] = deque()
        #: Asked for, and what the loop waits for then.
        self._asked: tuple[Any, ...] = ()
        self._by: Readable | None = None
        self._asked_at = 0.0

    def __call__(self, request: Any) -> None:
        if not self._waiting and not self._asked and self._claims.marked(claim_of(request)) and self._free(1):
            self._start(request)
            return
        self._waiting.append(request)
        if len(self._waiting) == 1:
            self._hub.call_soon(self._drain)

    def turn(self) -> None:
        """A slot may have become free; for whoever has to count them."""
        # A start that is refused frees its slot in here.
        while self._waiting and not self._asked and self._free(1):
            self._drain()

    def _drain(self) -> None:
        """Ask for what has a slot, or start one after the other; the next turn drains what an error leaves."""
        if self._asked:
            return  # its answer drains
        many = self._free(len(self._waiting))
        if not many or (self._ahead and self._ask(many)):
            return
        try:
            for _ in range(many):
                self._start(self._waiting.popleft())
        finally:
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting and self._free(1):
            self._hub.call_soon(self._drain)

    def _free(self, wanted: int) -> int:
        """For how many of so many there is a slot."""
        return wanted if self._slots is None else min(wanted, self._slots.free())

    def _start(self, request: Any) -> None:
        if self._slots is not None:
            self._slots.take(request)
        self._process(request)

    def _ask(self, many: int) -> bool:
        asked = tuple(islice(self._waiting, many))
        by = self._claims.ask([claim_of(request) for request in asked])
        if by is None:
            return False
        self._asked, self._asked_at = asked, monotonic()
        for _ in asked:
            self._waiting.popleft()
        # Not by its number: the one of a lost connection may be the next one's.
        if by is not self._by:
            self._by = by
            self._hub.add_reader(by.fileno(), self._hear)
        return True

    def look(self, within: float) -> None:
        """Now and then: hear an answer that is overdue. A server that hangs, or is cut off, makes nothing readable.

        Args:
            within: seconds for which an answer may take; to read it may take as long again, before it fails.
        """
        if self._asked and monotonic() - self._asked_at > within:
            self._hear()

    def _hear(self) -> None:
        """The answer is there, or none will come."""
        if not self._asked:
            self._unwatch()
            return
        answered = len(self._asked)
        try:
            self._take()
            for _ in range(answered):
                self._start(self._waiting.popleft())
        finally:
            self._go_on()

    def _take(self) -> None:
        asked, self._asked = self._asked, ()
        self._waiting.extendleft(reversed(asked))
        self._claims.answered()

    def _unwatch(self) -> None:
        """The store closed a connection that nothing was asked by; the next question makes another."""
        by, self._by = self._by, None
        if by is not None and by.fileno() >= 0:
            self._hub.remove_reader(by.fileno())

    def clear(self) -> int:
        """After a reconnect nothing of the old loop comes; returns how many starts were waiting."""
        self.settle()
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped

    def settle(self) -> None:
        """The loop turns no more: what was asked for is known, and waits."""
        self._by = None
        if self._asked:
            self._take()
