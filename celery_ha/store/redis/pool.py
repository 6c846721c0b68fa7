"""Links for threads that come and go, one for each call."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from celery_ha.store.redis.link import Link

#: Seconds of rest after which a connection is looked at before it is used: a server does not restart in less.
FRESH = 0.05


class LinkPool:
    """Grows to the number of threads that call at once. Made lazily; a forked child starts its own.

    Args:
        make: makes a link.
    """

    def __init__(self, make: Callable[[], Link]) -> None:
        #: Makes a link that is nobody else's.
        self.make = make
        self._pid = os.getpid()
        #: A deque needs no lock that another thread could hold across a fork.
        self._idle: deque[tuple[Link, float]] = deque()

    @contextmanager
    def link(self) -> Iterator[Link]:
        """Borrow a link."""
        if self._pid != os.getpid():
            self.close_inherited()
        try:
            link, since = self._idle.pop()
            if monotonic() - since > FRESH:
                link.drop_if_closed()
        except IndexError:
            link = self.make()
        try:
            yield link
        finally:
            self._idle.append((link, monotonic()))

    def close(self) -> None:
        """Drop the idle connections."""
        while self._idle:
            self._idle.pop()[0].close()

    def close_inherited(self) -> None:
        """In a forked child: drop what the parent had, sending nothing."""
        inherited, self._idle, self._pid = self._idle, deque(), os.getpid()
        for link, _ in inherited:
            link.close_inherited()
