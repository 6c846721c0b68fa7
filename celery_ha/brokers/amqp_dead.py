"""Dead letters on RabbitMQ: a queue of copies, each with the reason in a header."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import amqp

from celery_ha.brokers.unacked import OWN_ID, Delivery
from celery_ha.rabbitmq import NEVER_DROP

#: Where they go, and the header that says why: JSON with ``reason``, ``queue``, ``claim`` and ``at``.
DEAD_QUEUE, DEAD_HEADER = "_ha.dead", "ha_dead"


def declare_dead_queue(channel: Any) -> None:
    """Make the queue, if it is not there; whoever looks takes letters and gives them back, without a limit."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": NEVER_DROP}
    channel.queue_declare(DEAD_QUEUE, durable=True, auto_delete=False, arguments=arguments)


class DeadLetterBox:
    """Takes copies, over a channel of its own.

    Args:
        connection: of py-amqp, with publisher confirms.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel: Any = None

    def put(self, delivery: Delivery, reason: str) -> None:
        """Publish a copy, and return when RabbitMQ has confirmed it.

        **Failure:** dying before the message itself is acked leaves the copy, and a message that comes to
        its end again as this one did.
        """
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            declare_dead_queue(self._channel)
        why = {"reason": reason, "queue": delivery.queue, "claim": delivery.claim, "at": time.time()}
        headers = {**delivery.headers, DEAD_HEADER: json.dumps(why)}
        properties = {**delivery.message.properties, "application_headers": headers, "delivery_mode": 2}
        # Its own id counts its attempts: whoever publishes the copy again publishes another message.
        properties["message_id"] = f"{OWN_ID}{uuid4().hex}"
        # It stays until somebody decides.
        properties.pop("expiration", None)
        self._channel.basic_publish(amqp.Message(delivery.message.body, **properties), routing_key=DEAD_QUEUE)
