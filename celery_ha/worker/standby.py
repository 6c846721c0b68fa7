"""Second in line for the shards of others, on a broker that hands a shard over by itself.

RabbitMQ makes the consumer active that subscribed next, as soon as the owner's connection is closed:
what waits on the shards of a killed worker goes on before anybody has noticed the death. The owner
comes first because the others wait; who is active after all owns nothing by that, and runs no less
safely: affinity is not exclusion.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_ha.worker.consumer import Consumer

#: Seconds that a new owner gets to subscribe before the second in line does.
AFTER = 3.0


class Standby:
    """The shards that a consumer is subscribed to behind their owners.

    Args:
        consumer: whose; everything happens on its loop.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._owners: dict[str, str] = {}
        self._timer: Any = None

    def still(self, mine: Collection[str]) -> set[str]:
        """The shards to stay subscribed to: those whose owner has not changed. Forgets the others."""
        wanted = self._consumer.node.standbys()
        self._owners = {
            shard: owner for shard, owner in self._owners.items() if wanted.get(shard) == owner and shard not in mine
        }
        return set(self._owners)

    def clear(self) -> None:
        """The connection is a new one: the owners come first again."""
        self._owners = {}

    def later(self) -> None:
        """Subscribe when the owners have had their time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._consumer.timer.call_after(AFTER, self._subscribe) if self._wanted else None

    @property
    def _wanted(self) -> bool:
        return self._consumer.node.broker.hands_over

    def _subscribe(self) -> None:
        consumer, self._timer = self._consumer, None
        if consumer.connection is None or consumer.task_consumer is None or consumer.node.fenced:
            return
        wanted, now = consumer.node.standbys(), consumer._selected_shards()
        new = {shard: owner for shard, owner in wanted.items() if shard not in now}
        self._owners.update(new)
        consumer._subscribe(new)
