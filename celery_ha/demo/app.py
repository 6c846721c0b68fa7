"""The app of the demo: a sharded queue, and one locked task that writes down when it runs.

The workers and the demo itself import it; where the servers and the ledger are comes from the environment.
"""

from __future__ import annotations

import os

from celery import Celery

from celery_ha import HA
from celery_ha.demo.settings import BROKER, KEY_PREFIX, QUEUE, SHARDS, STORE, settings
from celery_ha.trial.probe import Work, make_probe

app = Celery("demo", set_as_current=False)
app.conf.update(
    settings(
        os.environ.get(BROKER, "redis://localhost:6379/0"),
        os.environ.get(STORE) or None,
        os.environ.get(KEY_PREFIX, "demo:"),
    )
)
HA(app)


charge = make_probe(app, "celery_ha.demo.charge", QUEUE)
WORK = Work(charge, QUEUE, SHARDS)
