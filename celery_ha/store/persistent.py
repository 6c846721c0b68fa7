"""Calls to the store that must be made sometime, by a thread of their own, until one is answered."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import sleep
from typing import TypeVar

from celery_ha.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds between two tries.
AGAIN = 0.5

Answer = TypeVar("Answer")


class Persistent:
    """Repeats calls until the store answers; they die with the process, and so does what they are about."""

    def run(self, call: Callable[[], Answer]) -> Future[Answer]:
        """Make a call, at once if the store answers; must be harmless to repeat.

        Returns:
            The answer, once it is there, or the error, which is logged.
        """
        pid, answer = os.getpid(), Future[Answer]()

        def go_on() -> None:
            while pid == os.getpid():
                try:
                    answer.set_result(call())
                except StoreUnavailable:
                    sleep(AGAIN)
                except Exception as error:
                    log.exception("%r failed", call)
                    answer.set_exception(error)
                if answer.done():
                    return

        threading.Thread(target=go_on, name="ha-persistent", daemon=True).start()
        return answer
