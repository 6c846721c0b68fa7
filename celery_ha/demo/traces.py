"""Leaves servers that go on after us as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from amqp.exceptions import AMQPError
from kombu.transport.native_delayed_delivery import level_name

from celery_ha.brokers.amqp_dead import DEAD_QUEUE
from celery_ha.brokers.amqp_peek import Peek
from celery_ha.brokers.connect import AmqpAccess, access_to
from celery_ha.demo.server import NoServer
from celery_ha.keys import shard_names
from celery_ha.store.base import Store
from celery_ha.store.redis import RedisStore

#: Levels of Celery's native delayed delivery.
LEVELS = 28


class Traces:
    """What a run leaves behind, on the broker and in the store.

    Args:
        app: the demo's.
        prefix: of everything that can have one.
        queue: the sharded queue.
        shards: how many shards it has.

    Raises:
        NoServer: there is a queue of this name on a RabbitMQ, which knows no prefixes: it may be in use.
    """

    def __init__(self, app: Any, prefix: str, queue: str, shards: int) -> None:
        self._app = app
        self._prefix = prefix
        self._exchange = queue
        names = [queue, *shard_names(queue, shards), DEAD_QUEUE, *map(level_name, range(LEVELS))]
        access = access_to(app)
        self._access = access if isinstance(access, AmqpAccess) else None
        self._ours: list[str] = []
        if self._access is not None:
            there = self._peek().counts(names)
            self._ours = [name for name, count in there.items() if count is None]
            if queue not in self._ours:
                raise NoServer(
                    f"there is a queue {queue!r} on {self._access.url}: name a virtual host without one, lest the demo "
                    "takes what is not its own"
                )

    def wipe(self, store: Store) -> None:
        """Delete it; workers and whoever else was there are gone.

        Args:
            store: the demo's own, of which nothing is left.
        """
        if self._access is not None:
            with suppress(AMQPError, OSError), self._peek().channel() as channel:
                for name in self._ours:
                    channel.queue_delete(name)
                channel.exchange_delete(self._exchange)
            self._access.close()
        if isinstance(store, RedisStore):
            self._wipe_redis(store)
        else:
            _wipe_zookeeper(store)

    def _peek(self) -> Peek:
        assert self._access is not None  # noqa: S101 - asked only where there is one
        return Peek(self._access.take(), self._access.url)

    def _wipe_redis(self, store: RedisStore) -> None:
        """Where the broker is the store, its keys have the same prefix."""
        with store.pool.link() as link:
            cursor = b"0"
            while True:
                ((cursor, keys),) = link.call(("SCAN", cursor, "MATCH", f"{self._prefix}*", "COUNT", 1000))
                if keys:
                    link.call(("DEL", *keys))
                if cursor == b"0":
                    return


def _wipe_zookeeper(store: Any) -> None:
    from celery_ha.store.zookeeper.link import children  # noqa: PLC0415 - kazoo is optional
    from celery_ha.store.zookeeper.ops import Delete  # noqa: PLC0415 - same

    def under(path: str) -> Iterator[str]:
        (names,) = store.link.ask(children(path))
        for name in names or ():
            yield from under(f"{path}/{name}")
        yield path

    for path in under(store.paths.root):
        store.link.commit(Delete(path))
