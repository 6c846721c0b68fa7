"""The app of the demo: a sharded queue, and one locked task that writes down when it runs.

The workers and the demo itself import it; where the servers are comes from the environment.
"""

from __future__ import annotations

import os

from celery import Celery

from celery_ha import HA
from celery_ha.demo.settings import BROKER, PREFIX, SHARDS, STORE, queue_of, settings
from celery_ha.trial.probe import Work, make_probe

_broker, _prefix = os.environ.get(BROKER, "redis://localhost:6379/0"), os.environ.get(PREFIX, "demo:")

QUEUE = queue_of(_broker, _prefix)

app = Celery("demo", set_as_current=False)
app.conf.update(settings(_broker, os.environ.get(STORE) or None, _prefix))
HA(app)


charge = make_probe(app, "celery_ha.demo.charge", QUEUE)
WORK = Work(charge, QUEUE, SHARDS)
