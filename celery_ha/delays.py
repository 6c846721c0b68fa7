"""What Celery's native delayed delivery on RabbitMQ needs before the first message goes that way.

A delayed message is published to a chain of exchanges and leaves it with its own routing key. If nothing
is bound to that key by then, RabbitMQ drops it without a word; Celery binds queues when a worker starts,
which may be later, or may not have been with as many shards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import wraps
from types import SimpleNamespace
from typing import Any

from amqp.exceptions import NotFound, RecoverableConnectionError
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from celery_ha.routing import undelayed

#: Seconds; Celery cannot publish a shorter delay and raises.
SHORTEST = 1
#: A time to come must be further away than the time it takes until Celery looks at it.
_SOON = 1.5


def lasting(send: Callable[..., Any], applies: Callable[[], bool]) -> Callable[..., Any]:
    """``app.send_task`` that takes a delay of less than a second for one of a second.

    Args:
        send: the app's own.
        applies: whether messages are delayed by RabbitMQ.
    """
    signature = inspect.signature(send)
    names = [*signature.parameters]
    undated = names.index("countdown") if "countdown" in names else 0

    @wraps(send)
    def send_later(*given: Any, **options: Any) -> Any:
        if len(given) <= undated and not (options.get("countdown") or options.get("eta")):
            return send(*given, **options)  # most calls: binding costs as much as a tenth of a publish
        call = signature.bind(*given, **options)
        asked = call.arguments
        if (asked.get("countdown") or asked.get("eta")) and applies():
            asked.update(_stretched(asked.get("countdown"), asked.get("eta"), datetime.now(timezone.utc)))
        return send(*call.args, **call.kwargs)

    return send_later


def _stretched(countdown: float | None, eta: Any, now: datetime) -> dict[str, Any]:
    if countdown is not None and 0 < countdown < SHORTEST:
        return {"countdown": SHORTEST}
    if isinstance(eta, datetime) and eta.tzinfo is not None and 0 < (eta - now).total_seconds() < _SOON:
        return {"eta": now + timedelta(seconds=_SOON)}
    return {}


def led_through(
    send: Callable[..., Any],
    queues: Callable[[], Any],
    retries: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
) -> Callable[..., Any]:
    """A sender of task messages that makes sure of a delayed one's way, once for each queue and process.

    A connection that is lost meanwhile is made again, as for the message itself: Celery drops a task whose retry
    cannot be published.

    Args:
        send: Celery's, which takes the producer first.
        queues: the app's queues by name.
        retries: how often and when a publish with these options is tried again; None: not at all.
    """
    led: set[str] = set()

    @wraps(send)
    def send_through(producer: Any, *args: Any, **options: Any) -> Any:
        key = options.get("routing_key") or ""
        name = undelayed(key)
        if name != key and name not in led:
            policy = retries(options)
            lead = _lead if policy is None else producer.connection.ensure(producer, _lead, **policy)
            lead(producer, queues()[name])
            led.add(name)
        return send(producer, *args, **options)

    return send_through


def _lead(producer: Any, queue: Any) -> None:
    """Declare a queue and bind it to the end of the delays, which are declared if they are not there."""
    connection = producer.connection
    if connection.connection is None:  # closed, by whoever lost it
        raise RecoverableConnectionError("the connection is closed")
    for attempt in range(2):
        channel = connection.channel()
        try:
            queue(channel).declare()
            bind_queue_to_native_delayed_delivery_exchange(SimpleNamespace(channel=lambda c=channel: c), queue)
        except NotFound:
            if attempt:
                raise
            levels = connection.channel()
            declare_native_delayed_delivery_exchanges_and_queues(SimpleNamespace(channel=lambda c=levels: c), "quorum")
            levels.close()
        else:
            channel.close()
            return
