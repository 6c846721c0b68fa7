"""A user's app for drills: one task, a queue of its own, settings in a namespace."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

from celery import Celery

from celery_ha import HA

#: What a user's settings module has; more of it comes from the environment.
SETTINGS = {
    "CELERY_BROKER_URL": os.environ.get("TINY_BROKER", "redis://localhost:6379/0"),
    "CELERY_TASK_ROUTES": {"*": {"queue": "everything"}},
    "CELERY_TASK_DEFAULT_QUEUE": "users",
    "CELERY_BROKER_TRANSPORT_OPTIONS": {"global_keyprefix": "tiny:"},
    "CELERY_HA_QUEUES": {"users": 4},
    "CELERY_HA_LEASE_TTL": 2.0,
    "CELERY_TASK_DEFAULT_RATE_LIMIT": "1/m",
    **json.loads(os.environ.get("TINY_CONF", "{}")),
}


class Stubborn(Celery):
    """Connects as it always does, whatever the settings say by now."""

    def connection_for_read(self, url: str | None = None, **kwargs: Any) -> Any:
        options = SETTINGS["CELERY_BROKER_TRANSPORT_OPTIONS"]
        return super().connection_for_read(url, **{**kwargs, "transport_options": options})


app = (Stubborn if os.environ.get("TINY_STUBBORN") else Celery)("tiny")
app.config_from_object(SimpleNamespace(**SETTINGS), namespace="CELERY")
if not os.environ.get("TINY_PLAIN"):
    HA(app)


@app.task
def hello() -> str:
    return "hello"
