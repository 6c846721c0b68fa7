"""What the workers and the demo itself agree on."""

from __future__ import annotations

from celery_ha.rabbitmq import is_rabbitmq

#: Environment variables that the demo sets for its workers.
BROKER, STORE, PREFIX = "CELERY_HA_DEMO_BROKER", "CELERY_HA_DEMO_STORE", "CELERY_HA_DEMO_PREFIX"

SHARDS = 24
#: Seconds: short, so that a frozen worker is taken over while one watches.
LEASE_TTL = 5.0
CONCURRENCY = 2


def queue_of(broker: str, prefix: str) -> str:
    """The sharded queue: RabbitMQ knows no prefix of everything, so there it is part of the name."""
    return f"{prefix}orders" if is_rabbitmq(broker) else "orders"


def settings(broker: str, store: str | None, prefix: str) -> dict[str, object]:
    """Celery and celery_ha settings for a run.

    Args:
        broker: URL of the server.
        store: URL of another server for leases and locks; None: the broker.
        prefix: of everything, so that a server in use is not disturbed and can be cleaned afterwards.
    """
    queue = queue_of(broker, prefix)
    return {
        "broker_url": broker,
        **({} if is_rabbitmq(broker) else {"broker_transport_options": {"global_keyprefix": prefix}}),
        "broker_connection_retry_on_startup": True,
        "task_default_queue": queue,
        "task_ignore_result": True,
        # More than fits into the pool: some of what the dead worker held has not started.
        "worker_prefetch_multiplier": 4,
        "ha_queues": {queue: SHARDS},
        "ha_lease_ttl": LEASE_TTL,
        **({"ha_store": store, "ha_prefix": prefix} if store else {}),
    }
