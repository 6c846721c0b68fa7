"""A beat whose clock is wrong by ``SKEW`` seconds."""

from __future__ import annotations

import os
from datetime import timedelta

from celery_ha.beat import scheduler

SKEW = float(os.environ.get("SKEW", "0"))


class Scheduler(scheduler.Scheduler):
    """Schedules read the clock through the app."""

    def __init__(self, app, *, lazy=False, **kwargs):
        if not lazy:
            right = app.now
            app.now = lambda: right() + timedelta(seconds=SKEW)
        super().__init__(app, lazy=lazy, **kwargs)
