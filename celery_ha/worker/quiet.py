"""Keeps a busy lock, an everyday event, from filling the log with warnings and tracebacks."""

from __future__ import annotations

import logging

from celery_ha.locks.busy import Busy
from celery_ha.worker.child import NotStarted


def quieten() -> None:
    """Drop Celery's record of a message that goes back by our own doing; harmless to repeat."""
    logging.getLogger("celery.app.trace").addFilter(_ours)


def _ours(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, (Busy, NotStarted))
