"""A scheduler that kills its process at one point of its first firing."""

from __future__ import annotations

import os
import signal

from celery_ha.beat import scheduler


class Scheduler(scheduler.Scheduler):
    """``CRASH_AT``: ``claimed`` (and not sent) or ``sent`` (and not marked)."""

    def __init__(self, app, *, lazy=False, **kwargs):
        super().__init__(app, lazy=lazy, **kwargs)
        if not lazy:
            self._send_it = self._outbox.send
            self._outbox.send = self._crash

    def _crash(self, entry, firing):
        if os.environ["CRASH_AT"] == "sent":
            assert self._send_it(entry, firing)
        os.kill(os.getpid(), signal.SIGKILL)
