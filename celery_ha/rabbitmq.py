"""What an app needs to be set to, and its queues to be declared as, where its broker is a RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_ha.config import Config, is_set

#: Celery settings besides :data:`celery_ha.config.CELERY_DEFAULTS`, and a heartbeat that follows the lease TTL.
DEFAULTS: Mapping[str, object] = {
    # Replicated, confirmed by a majority, and redelivered in order.
    "task_default_queue_type": "quorum",
    "task_create_missing_queue_type": "quorum",
    # Celery's native delayed delivery does not lead through direct exchanges.
    "task_default_exchange_type": "topic",
    "task_create_missing_queue_exchange_type": "topic",
}

#: The oldest version whose quorum queues do what we need.
OLDEST_RABBITMQ = (3, 10)
#: RabbitMQ drops a message that was given back more often, whoever gave it back and why. Attempts are
#: counted by us, and told; without a limit what is given back goes to the end of its queue.
NEVER_DROP = 2**31 - 1

#: URL schemes.
_SCHEMES = ("amqp", "amqps", "pyamqp")
#: RabbitMQ gives a silent connection up after so many heartbeats.
_HEARTBEATS = 2.5


def on_rabbitmq(conf: Any) -> bool:
    """Whether the broker of an app is a RabbitMQ, as its URL says.

    Args:
        conf: ``app.conf``.
    """
    url = conf.broker_read_url or conf.broker_url or ""
    first = url[0] if isinstance(url, (list, tuple)) and url else url
    return is_rabbitmq(str(first))


def is_rabbitmq(url: str) -> bool:
    """Whether a URL is one of a RabbitMQ's."""
    return url.partition("://")[0] in _SCHEMES


def rabbitmq_defaults(config: Config, conf: Any) -> dict[str, object]:
    """Celery settings to change because RabbitMQ needs them and the user has not chosen.

    Args:
        config: nothing is changed if its ``defaults`` is False.
        conf: ``app.conf``.

    Returns:
        New values by name; none where the broker is another one.
    """
    if not (config.defaults and on_rabbitmq(conf)):
        return {}
    wanted = {**DEFAULTS, "broker_heartbeat": max(1, int(config.lease_ttl / _HEARTBEATS))}
    return {key: value for key, value in wanted.items() if not is_set(conf, key)}


def make_quorum(queue: Any, *, single: bool = False) -> None:
    """Have a queue declared as a quorum queue, unless it was declared as something else.

    Args:
        queue: of kombu's; changed in place.
        single: it is consumed by one worker at a time.
    """
    arguments = dict(queue.queue_arguments or {})
    other = arguments.get("x-queue-type", "quorum") != "quorum" or "x-max-priority" in arguments
    if other or queue.exclusive or queue.auto_delete or not queue.durable:
        return
    arguments.setdefault("x-queue-type", "quorum")
    arguments.setdefault("x-delivery-limit", NEVER_DROP)
    if single:
        arguments.setdefault("x-single-active-consumer", True)
    queue.queue_arguments = arguments
