"""Moves what waits on a shard to the queue it is a shard of: plain workers consume nothing else."""

from __future__ import annotations

from functools import partial

from celery_ha.brokers.redis import RedisBroker
from celery_ha.envelope import rerouted
from celery_ha.lua import Script

#: Messages moved by one script: the server does nothing else meanwhile.
CHUNK = 200

MERGE = Script("celery_ha.brokers", "merge")


def merge(broker: RedisBroker, shard: str, queue: str, *, exchange: str, routing_key: str) -> int:
    """Append a shard's messages to its base queue, each priority in its order.

    Args:
        broker: where they are.
        shard: emptied.
        queue: gets them.
        exchange: of the base queue; a retry must not go back to the shard.
        routing_key: of the base queue.

    Returns:
        How many moved.

    Raises:
        StoreUnavailable: the broker was not reached; repeat it.

    **Failure:** each message is in one place, whoever dies; repeating moves the rest.
    """
    names, moved = broker.layout, 0
    for step in names.steps:
        source, target = (names.prefix + names.source(name, step) for name in (shard, queue))
        while found := broker._reached(partial(broker.client.lrange, source, -CHUNK, -1)):
            pairs = [part for old in found[::-1] for part in (old, rerouted(old, exchange, routing_key))]
            moved += int(broker._run(MERGE, [source, target], pairs))
    return moved
