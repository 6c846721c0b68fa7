"""A fork waits for the TLS connections that threads of this process are making.

OpenSSL is not made to be forked in the middle of another thread's work: the child inherits locks whose holder it does
not have, and waits for ever in its own first TLS connection, with a task in its hands under a lease that lives. A
worker's threads connect whenever they have to, and its pool forks whenever a child has ended.

See https://docs.openssl.org/master/man7/openssl-threads/: a forked child may count on nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.connection import SSLConnection

#: Seconds after its beginning for which a fork waits for a connection. What takes longer waits for the network, which
#: needs no lock; so one that hangs costs no more than this, however many forks there are.
PATIENCE = 1.0


class Handshakes:
    """TLS connections that are being made, by thread."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        #: Since when.
        self._makers: dict[int, float] = {}
        #: Threads that are about to fork.
        self._forks: set[int] = set()

    @contextmanager
    def making(self, *, tls: bool = True) -> Iterator[None]:
        """Around making one, if it is TLS; within another one it is a part of that, which begins now."""
        if not tls:
            yield
            return
        # Whoever forks in here goes on with these in the child as well.
        changed, makers, me = self._changed, self._makers, threading.get_ident()
        if me in makers:
            makers[me] = time.monotonic()
            yield
            return
        with changed:
            changed.wait_for(lambda: not self._forks, PATIENCE)
            makers[me] = time.monotonic()
        try:
            yield
        finally:
            with changed:
                del makers[me]
                changed.notify_all()

    def before_fork(self) -> None:
        """Wait for those of other threads, at most :data:`PATIENCE`; nobody begins one until the fork is over."""
        me = threading.get_ident()
        self._changed.acquire()
        self._forks.add(me)
        while (until := max((since for maker, since in self._makers.items() if maker != me), default=0.0)) and (
            left := until + PATIENCE - time.monotonic()
        ) > 0:
            self._changed.wait(left)

    def after_fork(self) -> None:
        """In the parent: they may begin again."""
        me = threading.get_ident()
        if me in self._forks:  # what is done before a fork may have been interrupted
            self._forks.discard(me)
            self._changed.notify_all()
            self._changed.release()

    def after_fork_in_child(self) -> None:
        """There is one thread here, and nothing is being made."""
        with suppress(RuntimeError):
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

        def connect(self) -> Any:  # Sentinel is asked in here
            with HANDSHAKES.making():
                return super().connect()

        def _connect(self) -> Any:  # all that a repeated command calls
            with HANDSHAKES.making():
                return super()._connect()

        def _wrap_socket_with_ssl(self, sock: Any) -> Any:  # after names were looked up, and the peer has answered
            with HANDSHAKES.making():
                return super()._wrap_socket_with_ssl(sock)

    return Minding
