"""What workers with a prefix of their own leave on broker and store, and how it is taken away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import redis as redis_py
from amqp.exceptions import NotFound
from kombu.transport.native_delayed_delivery import level_name

from celery_ha.brokers.amqp_dead import DEAD_QUEUE
from celery_ha.brokers.amqp_peek import Peek
from celery_ha.brokers.connect import AmqpAccess, RedisAccess, access_to
from celery_ha.keys import shard_names
from celery_ha.store.base import Store
from celery_ha.store.redis.store import RedisStore

#: What has a meaning in a Redis pattern.
_GLOB = re.compile(r"([*?\[\]^\\-])")
#: Keys looked at in one call.
STEP = 1000
#: Levels of Celery's native delayed delivery.
LEVELS = 28


class Traces(Protocol):
    """Of one server."""

    def wipe(self) -> None:
        """Take them away; harmless to repeat."""

    def left(self) -> Sequence[str]:
        """What is still there."""

    def close(self) -> None:
        """Drop the connection."""


class RedisTraces:
    """Keys that begin so."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self._client = client
        self._pattern = _begins(prefix)

    def wipe(self) -> None:
        for key in self._keys():
            self._client.delete(key)

    def left(self) -> Sequence[str]:
        return sorted(key.decode(errors="replace") for key in self._keys())

    def close(self) -> None:
        self._client.connection_pool.disconnect()

    def _keys(self) -> Iterator[bytes]:
        return self._client.scan_iter(match=self._pattern, count=STEP)


class RedisStoreTraces:
    """Keys of a store of its own."""

    def __init__(self, store: RedisStore, prefix: str) -> None:
        self._store = store
        self._pattern = _begins(prefix)

    def wipe(self) -> None:
        for key in self._keys():
            with self._store.pool.link() as link:
                link.call(("DEL", key))

    def left(self) -> Sequence[str]:
        return sorted(key.decode(errors="replace") for key in self._keys())

    def close(self) -> None:
        self._store.close()

    def _keys(self) -> Iterator[bytes]:
        cursor = b"0"
        while True:
            with self._store.pool.link() as link:
                (answer,) = link.call(("SCAN", cursor, "MATCH", self._pattern, "COUNT", STEP))
            cursor, keys = answer
            yield from keys
            if cursor == b"0":
                return


class ZooKeeperTraces:
    """A znode and all below it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._root = str(store.paths.root)

    def wipe(self) -> None:
        self._erase(self._root)

    def left(self) -> Sequence[str]:
        return [] if self._children(self._root) is None else [self._root]

    def close(self) -> None:
        self._store.close()

    def _erase(self, path: str) -> None:
        for name in self._children(path) or ():
            self._erase(f"{path}/{name}")
        self._store.link.ask(lambda client: client.delete_async(path))

    def _children(self, path: str) -> list[str] | None:
        (names,) = self._store.link.ask(lambda client: client.get_children_async(path))
        return None if names is None else list(names)


class RabbitTraces:
    """Queues and exchanges.

    Args:
        access: to the server.
        queues: that are declared for the workers.
        exchanges: and those.
    """

    def __init__(self, access: AmqpAccess, queues: Sequence[str], exchanges: Sequence[str]) -> None:
        self._peek = Peek(access.take(), access.url)
        # What workers of other apps have in common with these stays, if it was there before.
        shared = [DEAD_QUEUE, *map(level_name, range(LEVELS))]
        new = [queue for queue, count in self._peek.counts(shared).items() if count is None]
        self._queues, self._exchanges = [*queues, *new], [*exchanges, *new]

    def wipe(self) -> None:
        with self._peek.channel() as channel:
            for queue in self._queues:
                channel.queue_delete(queue)
            for exchange in self._exchanges:
                channel.exchange_delete(exchange)

    def left(self) -> Sequence[str]:
        there = [queue for queue, count in self._peek.counts(self._queues).items() if count is not None]
        return [*there, *filter(self._is_exchange, self._exchanges)]

    def close(self) -> None:
        self._peek.close()

    def _is_exchange(self, name: str) -> bool:
        with self._peek.channel() as channel:
            try:
                channel.exchange_declare(name, "direct", passive=True)
            except NotFound:
                return False
            return True


def traces_of(app: Any, queue: str, shards: int, exchanges: Sequence[str] = ()) -> tuple[Traces, ...]:
    """Where to look for what the workers of an app leave.

    Args:
        app: its ``ha_prefix``, and the ``global_keyprefix`` of a Redis broker, must be nobody else's.
        queue: the sharded queue they consume.
        shards: how many shards it has.
        exchanges: on RabbitMQ, what they declare besides.
    """
    found: list[Traces] = []
    access = access_to(app)
    if isinstance(access, RedisAccess):
        found.append(RedisTraces(access.client(timeout=None), access.key_prefix))
    elif isinstance(access, AmqpAccess):
        queues = (queue, *shard_names(queue, shards))
        found.append(RabbitTraces(access, queues, (queue, f"{queue}.shards", *exchanges)))
    if app.ha.config.store is not None:
        found.append(_of_store(app.ha.make_store(), app.ha.config.prefix))
    return tuple(found)


def _of_store(store: Store, prefix: str) -> Traces:
    return RedisStoreTraces(store, prefix) if isinstance(store, RedisStore) else ZooKeeperTraces(store)


def _begins(prefix: str) -> str:
    return _GLOB.sub(r"\\\1", prefix) + "*"
