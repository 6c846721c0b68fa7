"""Locks that belong to the lease of the worker that took them."""

from __future__ import annotations

from celery_ha.locks.lock import Lock
from celery_ha.locks.task import Busy, current_lock, locked_task

__all__ = ["Busy", "Lock", "current_lock", "locked_task"]
