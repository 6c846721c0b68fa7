"""Listens to the heartbeat events of all workers, on the nodes that observe all the time.

What is missing makes the observer look more often, and tells people who lives and how loaded they
are. It kills nobody: events are lossy, and some pools cannot send them while they work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from celery_ha.suspicion import Beat, heard, left, suspects

logger = logging.getLogger(__name__)

#: Seconds between two tries to listen.
AGAIN = 1.0
#: Seconds after which the receiver looks whether it should stop.
PATIENCE = 1.0


class Heartbeats:
    """A thread with a receiver of Celery's events; started and stopped as the node's role changes.

    Args:
        app: the Celery app.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._beats: Mapping[str, Beat] = {}
        self._load: dict[str, int] = {}
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, wanted: bool) -> None:  # noqa: FBT001
        """Listen, or stop listening and forget what was heard. Returns at once."""
        if wanted == self._wanted.is_set():
            return
        if not wanted:
            self._wanted.clear()
            self._beats = {}
            return
        self._wanted.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="ha-heartbeats", daemon=True)
            self._thread.start()

    def suspects(self) -> frozenset[str]:
        """Names of nodes that are silent for too many of their own intervals."""
        return suspects(self._beats, monotonic())

    def load(self) -> dict[str, int]:
        """Tasks running by node name, as last heard."""
        return dict(self._load)

    def _run(self) -> None:
        while self._wanted.is_set():
            self._try_to_receive()

    def _try_to_receive(self) -> None:
        try:
            self._receive()
        except Exception as exc:  # noqa: BLE001 - lossy by nature: the leases judge, not this
            logger.debug("Not listening to heartbeats for a moment: %r", exc)
            self._beats = {}  # whoever beats while we are deaf is not silent
            threading.Event().wait(AGAIN)

    def _receive(self) -> None:
        handlers = {"worker-heartbeat": self._on_beat, "worker-online": self._on_beat, "worker-offline": self._on_left}
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers=handlers)
            with receiver.consumer_context(wakeup=False) as (events, *_):
                while self._wanted.is_set():
                    with suppress(TimeoutError):
                        events.drain_events(timeout=PATIENCE)

    def _on_beat(self, event: dict[str, Any]) -> None:
        name = str(event.get("hostname"))
        self._beats = heard(self._beats, name, float(event.get("freq") or 0), monotonic())
        self._load[name] = int(event.get("active") or 0)

    def _on_left(self, event: dict[str, Any]) -> None:
        name = str(event.get("hostname"))
        self._beats = left(self._beats, name)
        self._load.pop(name, None)
