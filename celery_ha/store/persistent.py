"""Calls to the store that must be made sometime, by a thread of their own, until one is answered."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import sleep

from celery_ha.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds between two tries.
AGAIN = 0.5


class Persistent:
    """Repeats calls until the store answers; they die with the process, and so does what they are about."""

    def run(self, call: Callable[[], object]) -> None:
        """Make a call, at once if the store answers; must be harmless to repeat."""
        pid = os.getpid()

        def go_on() -> None:
            while pid == os.getpid() and not _answered(call):
                sleep(AGAIN)

        threading.Thread(target=go_on, name="ha-persistent", daemon=True).start()


def _answered(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreUnavailable:
        return False
    except Exception:
        log.exception("%r failed", call)
    return True
