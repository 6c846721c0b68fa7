"""kazoo's client as we need it: it keeps trying, and it tells the session timeout it was granted."""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect
from kazoo.retry import KazooRetry
from kazoo.security import make_acl, make_digest_acl

from celery_ha.forks import HANDSHAKES
from celery_ha.store.zookeeper.url import Address, client_settings

_MILLI = 1000
#: Seconds between two tries to connect: the first, and the longest. A server that was restarted drops the sessions
#: that do not come back within their timeout, and with them the places in line.
FIRST_RETRY, LONGEST_RETRY = 0.05, 0.25
_VERSION, _MODE = re.compile(r"(?i)zookeeper version: ([\d.]+)"), re.compile(r"Mode: (\w+)")


class Handler(ConnectionHandler):
    """The connection of a client; kazoo forgets what timeout the server granted."""

    #: Seconds; 0 until a server has answered.
    granted = 0.0

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        answer = super()._invoke(timeout, request, xid)
        if isinstance(request, Connect):
            self.granted = answer[0].time_out / _MILLI
        return answer


class Threads(SequentialThreadingHandler):
    """kazoo's own threads; a fork waits for their TLS connections."""

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        with HANDSHAKES.making(tls=bool(kwargs.get("use_ssl"))):
            return super().create_connection(*args, **kwargs)


def make_client(address: Address, session_timeout: float) -> KazooClient:
    """A client that is not started yet.

    Args:
        address: where the servers are, and who we are to them.
        session_timeout: seconds to ask for; the servers grant what is within their bounds.
    """
    settings = dict(client_settings(address))
    if address.user:
        settings["default_acl"] = [
            make_acl("sasl", address.user, all=True)
            if address.sasl
            else make_digest_acl(address.user, address.password, all=True)
        ]
    client = KazooClient(
        timeout=session_timeout,
        handler=Threads(),
        connection_retry=KazooRetry(max_tries=-1, delay=FIRST_RETRY, backoff=2, max_delay=LONGEST_RETRY),
        **settings,
    )
    old = client._connection  # noqa: SLF001 - kazoo offers no other place
    client._connection = Handler(  # noqa: SLF001
        client, old.retry_sleeper, logger=old.logger, sasl_options=old.sasl_options
    )
    return client


def is_over(client: KazooClient) -> bool:
    """Whether a client that was started never tries to connect again: it was refused, it broke or it was stopped."""
    routine = client._connection._connection_routine  # noqa: SLF001
    return routine is None or not routine.is_alive()


def end(client: KazooClient) -> None:
    """End the session and whatever runs for it."""
    with suppress(KazooException, KazooTimeoutError, OSError):
        client.stop()
        client.close()


def granted(client: KazooClient) -> float:
    """Seconds without a sign of life after which the servers drop the session; 0: not known yet."""
    seconds: float = client._connection.granted  # noqa: SLF001
    return seconds


def description(client: KazooClient) -> dict[str, str]:
    """Version and mode of the server a client talks to, by its word ``srvr``; empty if that is forbidden."""
    try:
        text = client.command(b"srvr")
    except (KazooException, KazooTimeoutError, OSError):
        return {}
    found = {"zookeeper_version": _VERSION.search(text), "zookeeper_mode": _MODE.search(text)}
    return {name: match[1] for name, match in found.items() if match}


def disown(client: KazooClient) -> None:
    """In a forked child: close the copies of the parent's sockets and send nothing.

    kazoo's threads do not exist here and its locks may be held for ever: nothing of it may be called.
    """
    connection = client._connection  # noqa: SLF001
    for name in ("_socket", "_read_sock", "_write_sock"):
        inherited = getattr(connection, name)
        if inherited is not None:
            with suppress(OSError):
                inherited.close()
    stop: Callable[[], None] = client.handler.stop
    atexit.unregister(stop)
