"""Locks that belong to the lease of the worker that took them."""

from __future__ import annotations

from celery_ha.locks.busy import Busy
from celery_ha.locks.inside import current_lock
from celery_ha.locks.lock import Lock
from celery_ha.locks.task import locked_task
from celery_ha.locks.unique import unique_task

__all__ = ["Busy", "Lock", "current_lock", "locked_task", "unique_task"]
