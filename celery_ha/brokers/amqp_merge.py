"""Moves what waits on a shard on RabbitMQ to the queue it is a shard of: plain workers consume nothing else."""

from __future__ import annotations

from collections import deque
from typing import Any

import amqp

from celery_ha.brokers.amqp_peek import Peek

#: Messages on their way at a time, and seconds without one after which somebody else must have them.
CHUNK, PATIENCE = 100, 2.0


def merge(peek: Peek, shard: str, queue: Any) -> int:
    """Append a shard's messages to its base queue, in their order.

    Args:
        peek: where they are.
        shard: emptied.
        queue: of kombu's; gets them.

    Returns:
        How many moved.

    Raises:
        StoreUnavailable: the broker was not reached; repeat it.

    **Failure:** a message leaves the shard when RabbitMQ has confirmed its copy. Dying in between leaves
    both: a task that runs twice rather than never.
    """
    moved = 0
    while peek.ready(shard):
        step = _step(peek, shard, queue)
        if not step:
            break
        moved += step
    return moved


def _step(peek: Peek, shard: str, queue: Any) -> int:
    """Move what is there now."""
    there, moved = peek.ready(shard) or 0, 0
    arrived: deque[Any] = deque()
    with peek.channel() as channel:
        queue(channel).declare()
        channel.basic_qos(0, CHUNK, False)
        # Not by asking for one at a time: a queue with a single active consumer answers to nobody else.
        channel.basic_consume(shard, callback=arrived.append)
        while moved < there:
            if not arrived:
                try:
                    peek.connection.drain_events(timeout=PATIENCE)
                except TimeoutError:
                    break
                continue
            message = arrived.popleft()
            channel.basic_publish(_copy(message), exchange=queue.exchange.name, routing_key=queue.routing_key)
            channel.basic_ack(message.delivery_tag)
            moved += 1
    return moved


def _copy(message: Any) -> amqp.Message:
    properties = dict(message.properties)
    headers = dict(properties.pop("application_headers", {}))
    headers.pop("x-delivery-count", None)
    return amqp.Message(message.body, application_headers=headers, **properties)
