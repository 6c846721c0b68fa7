"""The app of the demo: a sharded queue, and one locked task that writes down when it runs.

The workers and the demo itself import it; where the server and the ledger are comes from the environment.
"""

from __future__ import annotations

import os

from celery import Celery

from celery_ha import HA
from celery_ha.trial.probe import Work, make_probe

#: Environment variables that the demo sets for its workers.
BROKER, KEY_PREFIX = "CELERY_HA_DEMO_BROKER", "CELERY_HA_DEMO_PREFIX"

QUEUE, SHARDS = "orders", 24
#: Seconds: short, so that a frozen worker is taken over while one watches.
LEASE_TTL = 5.0
CONCURRENCY = 2


def settings(broker: str, prefix: str) -> dict[str, object]:
    """Celery and celery_ha settings for a run.

    Args:
        broker: URL of the server.
        prefix: of every key, so that a server in use is not disturbed and can be cleaned afterwards.
    """
    return {
        "broker_url": broker,
        "broker_transport_options": {"global_keyprefix": prefix},
        "broker_connection_retry_on_startup": True,
        "task_default_queue": QUEUE,
        "task_ignore_result": True,
        # More than fits into the pool: some of what the dead worker held has not started.
        "worker_prefetch_multiplier": 4,
        "ha_queues": {QUEUE: SHARDS},
        "ha_lease_ttl": LEASE_TTL,
    }


app = Celery("demo", set_as_current=False)
app.conf.update(settings(os.environ.get(BROKER, "redis://localhost:6379/0"), os.environ.get(KEY_PREFIX, "demo:")))
HA(app)


charge = make_probe(app, "celery_ha.demo.charge", QUEUE)
WORK = Work(charge, QUEUE, SHARDS)
