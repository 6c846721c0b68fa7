"""Port to what a store can tell people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from celery_ha.model import Failover, HeldLock, Release, Waiter


class Survey(ABC):
    """What people ask about a store. Nothing here takes part in judging; only :meth:`release` writes."""

    @abstractmethod
    def now(self) -> float:
        """The store's clock, in seconds since the epoch."""

    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What the server says of itself; what it keeps to itself is left out.

        Redis: by the names of its ``INFO``, and its ``save`` setting. ZooKeeper: ``zookeeper_version``,
        ``zookeeper_mode`` (``standalone``, ``leader``, ``follower``, ``observer``), and ``session_timeout`` as it was
        granted and ``session_asked``, both in seconds.
        """

    @abstractmethod
    def failovers(self, limit: int) -> tuple[Failover, ...]:
        """The last finished recoveries, the newest first."""

    @abstractmethod
    def slots(self) -> frozenset[tuple[str, int]]:
        """Name and slot of every lock that is held or in trust; not of one moment, locks come and go meanwhile."""

    @abstractmethod
    def locks(self, slots: Iterable[tuple[str, int]] | None = None) -> tuple[HeldLock, ...]:
        """Who holds what, by name and slot.

        Args:
            slots: those to look at; one that is free by now is left out. None: all.
        """

    @abstractmethod
    def lines(self) -> Mapping[str, int]:
        """How many stand in line, by lock; only locks that somebody waits for."""

    @abstractmethod
    def line(self, name: str, limit: int) -> tuple[Waiter, ...]:
        """The first in line for a lock."""

    @abstractmethod
    def release(self, name: str, tokens: Mapping[int, int], by: str) -> int:
        """Take a lock from its holders and hand it on, in one step with a note of who did so.

        Args:
            name: the lock.
            tokens: token by slot, as they were seen: a slot that changed hands meanwhile is left alone.
            by: who does it; the last 200 notes are kept for a week after the last.

        Returns:
            How many slots were freed. Their holders run on until they look: what the lock guards must refuse
            their tokens.
        """

    @abstractmethod
    def releases(self, limit: int) -> tuple[Release, ...]:
        """The last locks that somebody took from their holders, the newest first."""
