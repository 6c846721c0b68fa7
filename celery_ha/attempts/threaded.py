"""A question to a store that can only be asked by waiting: a thread waits."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from celery_ha.attempts.base import Attempt, Question, Started
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Readable, Settlement

#: Asks for one start and waits: :meth:`celery_ha.attempts.base.Attempts.start`.
Start = Callable[[str, Attempt, Sequence[tuple[Settlement, float]]], Started]


class ThreadedQuestion(Question):
    """See :class:`~celery_ha.attempts.base.Question`; the starts are made one after the other, each in its own step.

    That is enough: each is refused or written by itself, and the endings go with the first.

    Args:
        start: safe to call from a thread.
    """

    rings = True

    def __init__(self, start: Start) -> None:
        self._start = start
        self._thread: ThreadPoolExecutor | None = None
        self._ends: tuple[socket.socket, ...] = ()
        self._asked: Future[list[Started]] | None = None

    def ask(self, lease: str, attempts: Sequence[Attempt], settle: Sequence[tuple[Settlement, float]]) -> Readable:
        if self._thread is None:  # not before the pool's children were forked
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ha-starts")
            self._ends = socket.socketpair()
        said, ring = self._ends
        self._asked = self._thread.submit(self._run, ring, lease, tuple(attempts), tuple(settle))
        return said

    def answer(self) -> list[Started]:
        asked, self._asked = self._asked, None
        if asked is None:
            raise StoreUnavailable("nothing was asked")
        # It rings whatever came of it, so this waits as long as the store may.
        self._ends[0].recv(1)
        return asked.result()

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)
            self._asked = None
            for end in self._ends:
                end.close()

    def _run(
        self, ring: socket.socket, lease: str, attempts: Sequence[Attempt], settle: Sequence[tuple[Settlement, float]]
    ) -> list[Started]:
        try:
            return [self._start(lease, attempt, () if at else settle) for at, attempt in enumerate(attempts)]
        finally:
            with suppress(OSError):  # closed: nobody waits
                ring.send(b"\0")
