"""The port to the keys of unique tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from celery_ha.model import Reservation


class Uniques(ABC):
    """Keys under which at most one message is under way. Every one has an expiry: nothing is blocked for ever."""

    @abstractmethod
    def claim_key(self, key: str, task: str, ttl: float) -> Reservation:
        """Reserve a key for a task id, unless another has it.

        Args:
            key: at most 1 KB as UTF-8.
            task: the id to publish under.
            ttl: seconds after which it is free again; a key that is this task's already is kept at least so long.

        Returns:
            Who has it now, ``task`` or another.

        **Failure:** dying right after leaves a reservation that is not published, and free after ``ttl``.
        """

    @abstractmethod
    def keep_key(self, key: str, task: str, ttl: float) -> bool:
        """Note that the message is published and keep its key for ``ttl`` seconds, if it still is this task's.

        A key that was freed meanwhile stays free: the task may have ended before its publisher went on.
        """

    @abstractmethod
    def free_key(self, key: str, task: str) -> bool:
        """Free a key if it is this task's; whoever comes late frees nothing of another's."""
