"""Locks that a forked child inherits from threads it does not have."""

from __future__ import annotations

import gc
from functools import cached_property
from threading import RLock
from typing import Any


class InheritedLocks:
    """The locks of cached properties: kombu's and Celery's, and on Python before 3.12 everybody's.

    One lock serves a property of all instances, and is held while the value is made. A channel's client
    connects in it: a child forked while a thread of ours was connecting (to listen to heartbeats) would wait
    for ever at its own first publish, with its message in flight under a lease that lives.
    """

    def __init__(self) -> None:
        # By their type: an instance may be a proxy that does a lot to say what it is.
        found = [each for each in gc.get_objects() if issubclass(type(each), cached_property)]
        self._properties: list[Any] = [each for each in found if hasattr(each, "lock")]

    def renew(self) -> None:
        """In a child: give each property a lock that nobody holds."""
        for each in self._properties:
            each.lock = RLock()
