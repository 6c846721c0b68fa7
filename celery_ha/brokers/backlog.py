"""How many messages wait in a queue, on whatever broker: for looks, not for decisions about messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from kombu.exceptions import OperationalError

from celery_ha.brokers.amqp_peek import Peek
from celery_ha.brokers.census import Census
from celery_ha.brokers.connect import RedisAccess, access_to
from celery_ha.brokers.redis import RedisBroker
from celery_ha.errors import StoreUnavailable


class Backlog(Protocol):
    """Counts over a connection of its own."""

    #: What :meth:`waiting` raises when the broker does not answer.
    errors: tuple[type[Exception], ...]

    def waiting(self, queues: Collection[str]) -> Mapping[str, int]:
        """Messages in each queue that nobody has taken; a queue that does not exist has none."""

    def close(self) -> None:
        """Drop the connection."""


class RedisBacklog:
    """On Redis; connected when it is first asked."""

    errors: tuple[type[Exception], ...] = (StoreUnavailable, OperationalError)

    def __init__(self, access: RedisAccess, timeout: float) -> None:
        self._access = access
        self._timeout = timeout
        self._broker: RedisBroker | None = None

    def waiting(self, queues: Collection[str]) -> Mapping[str, int]:
        if self._broker is None:
            self._access.once(self._timeout)
            self._broker = self._access.broker(timeout=self._timeout, dead_limit=0)
            self._access.close()
        return Census(self._broker).waiting(queues)

    def close(self) -> None:
        if self._broker is not None:
            self._broker.client.connection_pool.disconnect()


class RabbitBacklog:
    """On RabbitMQ; connected when it is first asked."""

    errors: tuple[type[Exception], ...] = (StoreUnavailable,)

    def __init__(self, app: Any, timeout: float) -> None:
        limits = {"read_timeout": timeout, "write_timeout": timeout}
        # Nobody sends heartbeats on it.
        connection = app.connection_for_read(heartbeat=0, connect_timeout=timeout, transport_options=limits)
        self._peek = Peek(connection, connection.as_uri())

    def waiting(self, queues: Collection[str]) -> Mapping[str, int]:
        return {queue: count or 0 for queue, count in self._peek.counts(queues).items()}

    def close(self) -> None:
        self._peek.close()


def backlog_of(app: Any, timeout: float) -> RedisBacklog | RabbitBacklog:
    """Count on the broker of an app.

    Args:
        app: a Celery app.
        timeout: seconds for each answer.

    Raises:
        ConfigError: a broker of another kind.
    """
    access = access_to(app)
    return RedisBacklog(access, timeout) if isinstance(access, RedisAccess) else RabbitBacklog(app, timeout)
