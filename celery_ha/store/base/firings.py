"""The port to what beats have fired."""

from __future__ import annotations

from abc import ABC, abstractmethod

from celery_ha.model import Beats, Firing, Term


class Firings(ABC):
    """What the entries of a schedule fired last, changed only by the beat in office."""

    @abstractmethod
    def read(self, office: str) -> Beats:
        """Every entry's last firing, and whose the office is."""

    @abstractmethod
    def replace(self, term: Term, old: Firing | None, new: Firing) -> Firing:
        """Put ``new`` in the place of ``old``, or where nothing is, and keep a bounded history of the claimed ones.

        Args:
            term: on whose behalf; asked for in the same step.
            old: what the caller believes to be there; None: nothing.
            new: of the same entry.

        Returns:
            What is there now: ``new``, also if an earlier call put it there, or what somebody else did.

        Raises:
            LockLost: the term is over, or its lease is not open: nothing changed.
            StoreUnavailable: no answer; it may have happened.

        **Failure:** a firing that is there and not marked as sent is sent by the next beat in office.
        """

    @abstractmethod
    def drop(self, term: Term, entries: tuple[str, ...]) -> int:
        """Forget entries that left the schedule; returns how many. Raises like :meth:`replace`."""

    @abstractmethod
    def history(self) -> list[tuple[float, Firing]]:
        """Claimed firings, the last one first, each with its time by the store's clock; some hundred."""
