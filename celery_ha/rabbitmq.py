"""What an app needs to be set to, and its queues to be declared as, where its broker is a RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery_ha.appconf import is_set
from celery_ha.config import Config
from celery_ha.errors import ConfigError

#: Celery settings besides :data:`celery_ha.appconf.CELERY_DEFAULTS`, and a heartbeat that follows the lease TTL.
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

#: The argument that gives a classic queue priorities.
PRIORITIES = "x-max-priority"
#: The first RabbitMQ whose quorum queues know any, and the least that is a high one there.
TWO_PRIORITIES_SINCE, HIGH = 4, 5

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
    defaults = dict(DEFAULTS)
    if conf.task_queue_max_priority is not None:
        # They are for every queue, and quorum queues have none.
        defaults = {key: value for key, value in DEFAULTS.items() if value != "quorum"}
    wanted = {**defaults, "broker_heartbeat": max(1, int(config.lease_ttl / _HEARTBEATS))}
    return {key: value for key, value in wanted.items() if not is_set(conf, key)}


def refuse_unconfirmed(options: Mapping[str, object] | None) -> None:
    """A publish is accepted when RabbitMQ has said so: without confirms nothing could be promised.

    Args:
        options: ``broker_transport_options``; None: there are none.

    Raises:
        ConfigError: they switch confirms off.
    """
    if not (options or {}).get("confirm_publish", True):
        raise ConfigError(
            'broker_transport_options has "confirm_publish": False, and then a message that apply_async has sent may '
            'be lost with nobody told: leave "confirm_publish" out, celery_ha publishes with confirms'
        )


def make_quorum(queue: Any, *, single: bool = False) -> None:
    """Have a queue declared as a quorum queue, unless it was declared as something else.

    Args:
        queue: of kombu's; changed in place.
        single: it is consumed by one worker at a time.

    Raises:
        ConfigError: it is to be a quorum queue and something that no quorum queue is.
    """
    arguments = dict(queue.queue_arguments or {})
    if arguments.get("x-queue-type") == "quorum" and PRIORITIES in arguments:
        raise ConfigError(
            f"the queue {queue.name!r} cannot be a quorum queue with {PRIORITIES}, RabbitMQ would refuse it: leave "
            f"{PRIORITIES} out (since RabbitMQ 4 a quorum queue has two priorities by itself), or write "
            'queue_arguments={"x-queue-type": "classic", ...} and have it on one node only'
        )
    other = arguments.get("x-queue-type", "quorum") != "quorum" or PRIORITIES in arguments
    if other or queue.exclusive or queue.auto_delete or not queue.durable:
        return
    arguments.setdefault("x-queue-type", "quorum")
    arguments.setdefault("x-delivery-limit", NEVER_DROP)
    if single:
        arguments.setdefault("x-single-active-consumer", True)
    queue.queue_arguments = arguments


def on_priorities(queues: Iterable[Any], *, wanted: bool, version: str) -> list[str]:
    """What to tell the user about priorities on his queues; nothing, if he has not asked for any.

    Args:
        queues: of kombu's, those that are consumed.
        wanted: tasks are published with a priority.
        version: the server's.
    """
    ranked = sorted(queue.name for queue in queues if PRIORITIES in (queue.queue_arguments or {}))
    others = sorted(queue.name for queue in queues if PRIORITIES not in (queue.queue_arguments or {}))
    told = []
    if ranked:
        told.append(
            f"{_named(ranked)} classic because of {PRIORITIES}: kept on one node of RabbitMQ, and gone for as long as "
            "that node is; quorum queues have no such priorities"
        )
    if wanted and others:
        major = version.partition(".")[0]
        if major.isdecimal() and int(major) >= TWO_PRIORITIES_SINCE:
            told.append(f"{_named(others)} of two priorities: up to {HIGH - 1} is normal, from {HIGH} on is high")
        else:
            told.append(
                f"{_named(others)} without priorities: a quorum queue has none before RabbitMQ 4, this is {version}; "
                f"where the order matters, use queues of their own, or a classic queue with {PRIORITIES}"
            )
    return told


def _named(queues: Sequence[str]) -> str:
    return f"queue {queues[0]} is" if len(queues) == 1 else f"queues {', '.join(queues)} are"
