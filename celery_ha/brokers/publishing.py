"""Publishing on kombu's Redis transport: append, ring the queue's bell, and do both only once."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any
from weakref import WeakSet

import redis as redis_py
from kombu.transport import redis
from kombu.utils.json import dumps

from celery_ha.brokers.layout import BELL_TTL, Layout
from celery_ha.brokers.redis import PUBLISH, publish_command
from celery_ha.forks import minding_forks

#: Channels of this process, for the sake of the children it forks.
_ALIVE: WeakSet[RingingChannel] = WeakSet()


def _in_child() -> None:
    """Let go of inherited pools before kombu closes them.

    Closing takes the pool's lock, and a thread that does not exist here may have held it at the fork:
    the child would hang for ever. Without their owner the sockets close by themselves.
    """
    for channel in tuple(_ALIVE):
        channel.let_go()


os.register_at_fork(after_in_child=_in_child)


class RingingChannel(redis.Channel):
    """A kombu Redis channel whose publishes wake an idle node at once."""

    connection_class_ssl = minding_forks(redis.Channel.connection_class_ssl)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._raw: Any = None
        super().__init__(*args, **kwargs)
        _ALIVE.add(self)

    @cached_property
    def layout(self) -> Layout:
        limit = self.connection.client.dead_letters_max
        return Layout(self.global_keyprefix, self.sep, tuple(self.priority_steps), limit)

    @property
    def raw(self) -> Any:
        """A client that adds no prefix: the scripts get whole key names."""
        if self._raw is None or self._raw.connection_pool is not self.pool:  # a fork drops the pool
            self._raw = redis_py.Redis(connection_pool=self.pool)
        return self._raw

    def _inplace_augment_message(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        """Kombu calls this again, with the same properties, when it retries a publish (rule 14)."""
        super()._inplace_augment_message(message, exchange, routing_key)
        if self.connection is None:
            # Of a producer whose connection was lost and collected: an error that has kombu take another one.
            raise redis_py.ConnectionError("the channel of this producer is closed")
        message["properties"].setdefault("ha_publish_id", self.connection.client.next_publish_id())

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        if queue in getattr(self, "_expires", ()) or self._is_reply(message):  # kombu 5.7 has queues that expire
            super()._put(queue, message, **kwargs)
        elif batch is not None:
            super()._put(queue, message, **kwargs)
            batch.add("zadd", f"_ha:bell:{queue}", {"1": 0})
            batch.add("expire", f"_ha:bell:{queue}", BELL_TTL)
        else:
            self._publish(queue, message)

    def _publish(self, queue: str, message: dict[str, Any]) -> None:
        publish_id = str(message["properties"].get("ha_publish_id", ""))
        priority = self._get_message_priority(message, reverse=False)
        PUBLISH(self.raw, *publish_command(self.layout, queue, priority, dumps(message), publish_id))

    def _ring(self, queue: str) -> None:
        bell = self.layout.bell(queue)
        with self.raw.pipeline() as together:
            together.zadd(bell, {"1": 0})
            together.expire(bell, BELL_TTL)
            together.execute()

    @staticmethod
    def _is_reply(message: dict[str, Any]) -> bool:
        info = message.get("properties", {}).get("delivery_info") or {}
        return str(info.get("exchange", "")).endswith("pidbox")

    def let_go(self) -> None:
        """In a forked child: drop what was inherited, take no lock."""
        self._pool = self._async_pool = self._raw = None
        self._sentinel_manager = self._async_sentinel_manager = None
        for name in ("client", "subclient"):
            self.__dict__.pop(name, None)
