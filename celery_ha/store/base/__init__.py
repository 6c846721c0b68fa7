"""Ports to the store: where leases, leadership and locks live.

Small ports, because different parts of the design use them, each with its guarantees. An adapter gives
all of them (see :class:`Store`). Every write names its condition and returns whether it happened; a
call that cannot reach the store raises :class:`~celery_ha.errors.StoreUnavailable`, after which
it may or may not have happened: every one of them can be repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from celery_ha.store.base.court import Court
from celery_ha.store.base.firings import Firings
from celery_ha.store.base.leases import LeaseStore
from celery_ha.store.base.locks import LockStore
from celery_ha.store.base.parking import Parking
from celery_ha.store.base.revocations import Revocations
from celery_ha.store.base.uniques import Uniques
from celery_ha.store.survey import Survey

__all__ = ["Court", "Firings", "LeaseStore", "LockStore", "Parking", "Revocations", "Store", "Uniques"]


class Store(ABC):
    """One store, its ports, and what it can tell people."""

    #: None: this store cannot say.
    survey: Survey | None = None

    leases: LeaseStore
    court: Court
    locks: LockStore
    uniques: Uniques
    revocations: Revocations
    firings: Firings

    @abstractmethod
    def close(self) -> None:
        """Drop the connections of this process. Leases are not touched."""
