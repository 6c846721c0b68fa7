"""A message of RabbitMQ's in the form that messages have in a queue of kombu's Redis transport."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any


def as_envelope(message: Any) -> bytes:
    """What can be read of a message without opening it, as :mod:`celery_ha.envelope` reads it.

    Args:
        message: of py-amqp.
    """
    properties = dict(message.properties)
    headers = properties.pop("application_headers", {})
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    payload = {
        "body": b64encode(body).decode(),
        "content-type": properties.get("content_type"),
        "content-encoding": properties.get("content_encoding"),
        "headers": headers,
        "properties": {**properties, "body_encoding": "base64"},
    }
    return json.dumps(payload, default=str).encode()
