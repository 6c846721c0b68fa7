"""A fork waits for the TLS connections that threads of this process are making.

OpenSSL is not made to be forked in the middle of another thread's work: the child inherits locks whose holder it does
not have, and waits for ever in its own first TLS connection, with a task in its hands under a lease that lives. A
worker's threads connect whenever they have to, and its pool forks whenever a child has ended.

See https://docs.openssl.org/master/man7/openssl-threads/: a forked child may count on nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.connection import SSLConnection

#: Seconds that a fork waits, holding up new connections. What takes longer waits for the network, which needs no lock.
PATIENCE = 1.0


class Handshakes:
    """TLS connections that are being made, by thread."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._makers: dict[int, int] = {}
        #: Threads that are about to fork.
        self._forks = 0

    @contextmanager
    def making(self) -> Iterator[None]:
        """Around making one."""
        # Whoever forks in here goes on with these in the child as well.
        changed, makers, me = self._changed, self._makers, threading.get_ident()
        with changed:
            changed.wait_for(lambda: not self._forks or me in makers)
            makers[me] = makers.get(me, 0) + 1
        try:
            yield
        finally:
            with changed:
                makers[me] -= 1
                if not makers[me]:
                    del makers[me]
                changed.notify_all()

    def before_fork(self) -> None:
        """Wait for those of other threads, at most :data:`PATIENCE`; nobody begins one until the fork is over."""
        me = threading.get_ident()
        self._changed.acquire()
        self._forks += 1
        self._changed.wait_for(lambda: not self._makers.keys() - {me}, PATIENCE)

    def after_fork(self) -> None:
        """In the parent: they may begin again."""
        self._forks -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """There is one thread here, and nothing is being made."""
        self._changed.release()
        self._begin()


HANDSHAKES = Handshakes()
os.register_at_fork(
    before=HANDSHAKES.before_fork,
    after_in_parent=HANDSHAKES.after_fork,
    after_in_child=HANDSHAKES.after_fork_in_child,
)


def minding_forks(connection: type[Any]) -> type[Any]:
    """Make of a class of redis-py connections one for which a fork waits; of plain ones there is no need."""
    if not issubclass(connection, SSLConnection):
        return connection

    class Minding(connection):
        __doc__ = connection.__doc__

        def connect(self) -> Any:
            with HANDSHAKES.making():
                return super().connect()

    return Minding
