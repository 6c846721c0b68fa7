"""Cuts a worker's connections to its broker, from another thread than the loop that hangs on one of them.

kombu sends heartbeats, events and the like from the loop and waits for the answer; where a firewall has dropped the
connection none ever comes, and unless the user sets ``socket_timeout`` nothing ends the wait. The lease then is not
renewed (rule 10) and all that the worker holds moves on, but the worker itself hangs for good. A socket that is shut
down is at its end for whoever reads it: the loop sees a lost connection, and Celery makes a new one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any


def cut(consumer: Any) -> int:
    """Shut down what a consumer talks to its broker over.

    Args:
        consumer: Celery's; its loop may be anywhere.

    Returns:
        How many connections there were.
    """
    found = {each for connection in _connections(consumer) for each in _sockets(connection)}
    for each in found:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    return len(found)


def _connections(consumer: Any) -> Iterator[Any]:
    yield consumer.connection
    dispatcher = getattr(consumer, "event_dispatcher", None)
    yield getattr(dispatcher, "connection", None)


def _sockets(connection: Any) -> Iterator[socket.socket]:
    transport, raw = getattr(connection, "_transport", None), getattr(connection, "_connection", None)
    for channel in tuple(getattr(transport, "channels", None) or ()):
        for pool in (channel.__dict__.get("_pool"), channel.__dict__.get("_async_pool")):
            for name in ("_in_use_connections", "_available_connections"):
                for one in tuple(getattr(pool, name, ())):
                    yield from _socket(getattr(one, "_sock", None))
    yield from _socket(getattr(getattr(raw, "transport", None), "sock", None))


def _socket(found: Any) -> Iterator[socket.socket]:
    if isinstance(found, socket.socket):
        yield found
