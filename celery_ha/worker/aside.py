"""Calls that may wait for a server, made off the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from time import sleep

from celery_ha.errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: Calls made at once; one that hangs must not hold up the others.
THREADS = 4
#: Seconds between two tries of a call that must be made.
ASK_AGAIN = 0.5


class Aside:
    """A few threads, started when first needed: after the pool's children were forked."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._calls: list[Future[None]] = []

    def run(self, call: Callable[[], object]) -> None:
        """Make a call soon; what it raises is logged. Not after :meth:`close`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ha-aside")
        with suppress(RuntimeError):  # shut down: the worker has said goodbye
            self._calls = [*(made for made in self._calls if not made.done()), self._threads.submit(_logged, call)]

    def insist(self, call: Callable[[], object], wanted: Callable[[], bool]) -> None:
        """Make a call soon, and again while the store does not answer, as long as it is wanted."""

        def repeat() -> None:
            while wanted():
                with suppress(StoreUnavailable):
                    call()
                    return
                sleep(ASK_AGAIN)

        self.run(repeat)

    def finish(self, within: float) -> None:
        """Wait for the calls made so far, at most so many seconds."""
        wait(self._calls, timeout=within)

    def close(self) -> None:
        """Make no more calls."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)


def _logged(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        logger.exception("%r failed", call)
