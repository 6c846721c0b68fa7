"""kombu's connections, using the claiming transports where the URL is one of Redis or RabbitMQ.

Not by ``broker_transport``: that breaks ``as_uri``, Flower and ``amqp://`` URLs.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any
from uuid import uuid4

from kombu import connection
from kombu.transport import pyamqp, redis

from celery_ha.brokers import amqp_transport
from celery_ha.brokers.intake import Intake
from celery_ha.brokers.transport import ClaimingSentinelTransport, ClaimingTransport

_CLAIMING = {
    redis.Transport: ClaimingTransport,
    redis.SentinelTransport: ClaimingSentinelTransport,
    pyamqp.Transport: amqp_transport.ClaimingTransport,
    pyamqp.SSLTransport: amqp_transport.ClaimingSSLTransport,
}


class Connection(connection.Connection):
    """A connection, and the producer whose publishes it numbers."""

    #: The node that consumes through this connection, set by the worker.
    intake: Intake | None = None
    #: The lease that is consumed under, told to the broker when it connects.
    lease: str | None = None
    #: Dead letters kept by the broker.
    dead_letters_max = 10_000

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._numbers = count(1)
        self._producer = uuid4().hex
        self._pid = os.getpid()
        super().__init__(*args, **kwargs)

    def next_publish_id(self) -> str:
        """One producer's running number; see ``publish.lua``."""
        if self._pid != os.getpid():
            # A forked sibling goes on counting where we were: two producers need two names.
            self._producer, self._pid = uuid4().hex, os.getpid()
        return f"{self._producer}.{next(self._numbers)}"

    def get_transport_cls(self) -> Any:
        plain = super().get_transport_cls()
        return _CLAIMING.get(plain, plain)

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        return ConnectionPool(self, limit, **kwargs)


class PooledConnection(Connection, connection.PooledConnection):
    """A connection of a pool's."""


class ConnectionPool(connection.ConnectionPool):
    """kombu's pool names the class of its connections itself."""

    def new(self) -> PooledConnection:
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))
