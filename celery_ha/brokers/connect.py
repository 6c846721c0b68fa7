"""From a Celery app's broker settings to connections of our own to the same server."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import closing, suppress
from time import sleep
from typing import Any, TypeVar

import redis as redis_py
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp, redis
from kombu.utils.url import maybe_sanitize_url
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_ha.brokers.layout import Layout
from celery_ha.brokers.redis import RedisBroker
from celery_ha.errors import ConfigError, StoreUnavailable
from celery_ha.rabbitmq import OLDEST_RABBITMQ

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

#: Seconds between two tries to make something while the broker comes and goes.
AGAIN = 1.0

#: What to write instead of what cannot be used; each is another way to lose what is in flight.
_USABLE = "write a redis://, rediss://, redis+socket://, sentinel://, amqp:// or amqps:// URL"


class BrokerAccess:
    """How to reach an app's broker exactly as kombu does: TLS, sockets, Sentinel, credentials.

    Args:
        app: the Celery app.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection = app.connection_for_read()
        self.url = self._connection.as_uri()
        #: The same with its password.
        self.full_url = str(self._connection.as_uri(include_password=True))

    def wait(self) -> None:
        """Wait for the broker as long as Celery's ``broker_connection_*`` settings say.

        Raises:
            kombu.exceptions.OperationalError: not there in time, or waiting is switched off.
        """

        def complain(exc: Exception, seconds: float) -> None:
            logger.error("Cannot connect to %s: %s. Trying again in %s s", self.url, exc, seconds)

        if not self.patient:
            self._connection.connect()
            return
        most = self._app.conf.broker_connection_max_retries
        self._connection.ensure_connection(complain, most, interval_start=1, interval_step=1, interval_max=10)

    @property
    def patient(self) -> bool:
        """Whether Celery's settings say to wait for a broker that is not there at the start."""
        conf = self._app.conf
        retry = conf.broker_connection_retry_on_startup
        return bool(conf.broker_connection_retry if retry is None else retry)

    def once_there(self, make: Callable[[], Made]) -> Made:
        """Wait for the broker and make what needs it, again if it has gone away in between.

        Args:
            make: opens connections of its own.

        Raises:
            kombu.exceptions.OperationalError: as :meth:`wait`.
            ConfigError: as :meth:`make_sure`.
        """
        while True:
            self.wait()
            try:
                self.make_sure()
                return make()
            except (OperationalError, redis_py.ConnectionError) as exc:
                if not self.patient:
                    raise
                logger.error("%s went away again: %s", self.url, exc)  # noqa: TRY400 - an everyday event
                sleep(AGAIN)

    def once(self, timeout: float) -> None:
        """Connect now, or say that it cannot be done: for somebody who sits and waits for an answer.

        Args:
            timeout: seconds for one attempt to connect, and for one answer; a few are made.

        Raises:
            StoreUnavailable: the broker does not answer.
        """
        self._limit(timeout)
        try:
            self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        except OperationalError as exc:
            raise StoreUnavailable(f"the broker {self.url} could not be reached: {exc}") from exc

    def close(self) -> None:
        """Drop the connection that the others were modelled on; they stay."""
        self._connection.release()

    def make_sure(self) -> None:
        """Look whether the server is of a kind that can be used.

        Raises:
            ConfigError: it is not.
        """
        raise NotImplementedError

    def _limit(self, timeout: float) -> None:
        """Have the connection wait no longer, for whatever."""
        raise NotImplementedError


class AmqpAccess(BrokerAccess):
    """A RabbitMQ."""

    def take(self) -> Any:
        """The connection itself, for whoever closes it."""
        return self._connection

    def make_sure(self) -> None:
        version = str(self._connection.connection.server_properties.get("version", ""))
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is not None and (int(found[1]), int(found[2])) < OLDEST_RABBITMQ:
            wanted = ".".join(map(str, OLDEST_RABBITMQ))
            raise ConfigError(f"the broker {self.url} is RabbitMQ {version}: upgrade it to {wanted} or later")

    def _limit(self, timeout: float) -> None:
        self._connection.connect_timeout = timeout
        self._connection.transport_options.update({"read_timeout": timeout, "write_timeout": timeout})


class RedisAccess(BrokerAccess):
    """A Redis or Valkey."""

    def make_sure(self) -> None:
        client = self.client(timeout=None)
        # If INFO is not permitted, it does not say.
        with closing(client.connection_pool), suppress(redis_py.ResponseError):
            if client.info("cluster").get("cluster_enabled"):
                raise ConfigError(
                    f"the broker {self.url} is a Redis Cluster, which cannot be used: take a single server or Sentinel"
                )

    def _limit(self, timeout: float) -> None:
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._connection.transport_options.update(limits)

    def client(self, *, timeout: float | None, retries: int = 0) -> redis_py.Redis:
        """A client with a pool of its own.

        Args:
            timeout: seconds for connecting and for every answer; None: as configured for kombu.
            retries: how often a call is repeated on a new connection.
        """
        channel = self._channel()
        if timeout is not None:
            channel.socket_timeout = channel.socket_connect_timeout = timeout
        pool = channel._get_pool()
        pool.connection_kwargs["retry"] = Retry(NoBackoff(), retries)
        return redis_py.Redis(connection_pool=pool)

    def broker(self, *, timeout: float | None, retries: int = 0, dead_limit: int) -> RedisBroker:
        """The broker port on a client of its own."""
        return RedisBroker(self.client(timeout=timeout, retries=retries), self.layout(dead_limit))

    def layout(self, dead_limit: int) -> Layout:
        """Where everything is on this broker."""
        channel = self._channel()
        return Layout(channel.global_keyprefix, channel.sep, tuple(channel.priority_steps), dead_limit)

    @property
    def key_prefix(self) -> str:
        return str(self._channel().global_keyprefix)

    def _channel(self) -> Any:
        return self._connection.default_channel


def access_to(app: Any) -> RedisAccess | AmqpAccess:
    """The app's broker, of whatever kind.

    Raises:
        ConfigError: it is of a kind celery_ha does not support.
    """
    transport: Any = object
    with suppress(Exception):  # what it would need is not installed, which each says in its own way: none of ours
        transport = app.connection_for_read().get_transport_cls()
    if issubclass(transport, redis.Transport):
        return RedisAccess(app)
    if issubclass(transport, pyamqp.Transport):
        return AmqpAccess(app)
    # Not as_uri(), which needs the transport.
    raise ConfigError(f"celery_ha cannot use the broker {maybe_sanitize_url(str(app.conf.broker_url))}: {_USABLE}")


def redis_access(app: Any) -> RedisAccess:
    """The app's broker, where only a Redis will do.

    Raises:
        ConfigError: it is none.
    """
    access = access_to(app)
    if isinstance(access, RedisAccess):
        return access
    raise ConfigError(f"this needs a Redis broker, and the broker is {access.url}")
