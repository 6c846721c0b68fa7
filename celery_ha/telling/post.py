"""Sends news as events of Celery's, over a connection that lives as long as there is something to send."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from celery_ha.telling.news import News

logger = logging.getLogger(__name__)

#: News kept while the broker is away; the oldest go first.
MOST = 1000
#: Seconds before a broker that was away is tried again.
AGAIN = 1.0


class Post:
    """A thread that sends; it waits for nobody and nobody waits for it. Events are lossy, as all of Celery's are.

    Args:
        app: the Celery app.
        hostname: the node that tells.
    """

    def __init__(self, app: Any, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._waiting: deque[tuple[str, dict[str, object]]] = deque(maxlen=MOST)
        self._ready = threading.Condition()
        self._over = False
        self._thread: threading.Thread | None = None

    def put(self, news: News) -> None:
        """Have news sent soon; from any thread. The event has the time of this call."""
        with self._ready:
            self._waiting.append((news.kind.name, {**news.fields, "timestamp": time.time()}))
            if self._thread is None and not self._over:
                self._thread = threading.Thread(target=self._run, name="ha-post", daemon=True)
                self._thread.start()
            self._ready.notify()

    def close(self, within: float) -> None:
        """Send what is waiting, for at most so many seconds, and stop."""
        with self._ready:
            self._over = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join(within)

    def _run(self) -> None:
        while True:
            with self._ready:
                while not (self._waiting or self._over):
                    self._ready.wait()
                if not self._waiting:
                    return
            try:
                self._send()
            except Exception as exc:  # noqa: BLE001 - whatever a broker's client raises: events are lossy by nature
                logger.debug("No events are sent for a moment: %r", exc)
                with self._ready:
                    if self._over:
                        return
                    self._ready.wait(AGAIN)

    def _send(self) -> None:
        with (
            self._app.connection_for_write() as connection,
            self._app.events.Dispatcher(connection, hostname=self._hostname, buffer_while_offline=False) as dispatcher,
        ):
            while self._waiting:
                kind, fields = self._waiting[0]
                dispatcher.send(kind, **fields)
                with suppress(IndexError):  # the oldest went while it was sent
                    if self._waiting[0][1] is fields:
                        self._waiting.popleft()
