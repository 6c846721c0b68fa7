"""A beat whose clock is wrong by ``SKEW`` seconds."""

from __future__ import annotations

import os
from datetime import timedelta
from time import time

from celery_ha.beat import scheduler

SKEW = float(os.environ.get("SKEW", "0"))


class Scheduler(scheduler.Scheduler):
    """The clock is read by Celery through the app, and by us in one module."""

    def __init__(self, app, **kwargs):
        right = app.now
        app.now = lambda: right() + timedelta(seconds=SKEW)
        scheduler.time = lambda: time() + SKEW
        super().__init__(app, **kwargs)
