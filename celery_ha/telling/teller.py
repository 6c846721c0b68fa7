"""The one who tells: log, events and metrics of a process, and of the pool children it forked."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any, Protocol

from celery_ha.telling.news import KINDS, Kind, News
from celery_ha.telling.pipe import Pipe

logger = logging.getLogger("celery_ha.decisions")


class Listener(Protocol):
    """What else hears the news."""

    def put(self, news: News) -> None:
        """Take news, from any thread; may not wait."""

    def close(self, within: float) -> None:
        """Finish, in at most so many seconds."""


class Measures(Protocol):
    """Keeps what is measured."""

    def measure(self, what: str, seconds: float, labels: dict[str, str]) -> None:
        """Take one measurement, from any thread."""


class Teller:
    """Tells what was decided. Without listeners, as in a web process, it only writes to the log.

    In a pool's child it hands on to the main process, which writes the line too.
    """

    def __init__(self) -> None:
        #: Celery name of the worker this process is.
        self.node = ""
        #: Term of the leader, as last seen.
        self.term = 0
        self._pid = os.getpid()
        self._listeners: list[Listener] = []
        self._measures: Measures | None = None
        self._pipe: Pipe | None = None

    def open(
        self, node: str, listeners: list[Listener], measures: Measures | None = None, *, forks: bool = False
    ) -> None:
        """Tell more than the log; in a worker's main process, before its pool forks.

        Args:
            node: its Celery name.
            listeners: who hears all news.
            measures: keeps what is measured; None: nothing is.
            forks: its pool has children that have something to tell.
        """
        self.node, self._pid = node, os.getpid()
        self._listeners, self._measures = listeners, measures
        self._pipe = Pipe(self._from_child) if forks else None

    @property
    def measures(self) -> bool:
        """Whether it is of any use to measure."""
        return self._measures is not None

    def tell(self, kind: Kind, **fields: object) -> None:
        """Tell a decision, from any thread of any process; never waits and never fails."""
        news = News.of(kind, **{"node": self.node, "term": self.term, **fields})
        if self._pipe is not None and os.getpid() != self._pid:
            if not self._pipe.send({"tell": kind.name, "fields": dict(news.fields)}):
                _log(news)
            return
        self._spread(news)

    def measure(self, what: str, seconds: float, **labels: str) -> None:
        """Note how long something took; see :mod:`celery_ha.telling.metrics` for what there is."""
        if self._measures is None:
            return
        if os.getpid() == self._pid:
            self._measures.measure(what, seconds, labels)
        elif self._pipe is not None:
            self._pipe.send({"measure": what, "seconds": seconds, "labels": labels})

    def close(self, within: float) -> None:
        """The last news are told, in at most so many seconds."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        for listener in self._listeners:
            listener.close(within)
        self._listeners = []

    def _spread(self, news: News) -> None:
        _log(news)
        for listener in self._listeners:
            listener.put(news)

    def _from_child(self, record: dict[str, Any]) -> None:
        if "tell" in record:
            news = News.of(KINDS[record["tell"]], **record["fields"])
            self._spread(replace(news, fields={**news.fields, "term": self.term}))
        elif self._measures is not None:
            self._measures.measure(record["measure"], record["seconds"], record["labels"])


def _log(news: News) -> None:
    logger.log(news.level, "%s", news.line(), extra={"ha_event": news.kind.name, "ha": dict(news.fields)})
