"""The port to messages that wait for a lock."""

from __future__ import annotations

from abc import ABC, abstractmethod

from celery_ha.model import Holder, Parked


class Parking(ABC):
    """Where a message waits for its lock, instead of in a worker. Only where store and broker are one server."""

    @abstractmethod
    def park(self, name: str, holder: Holder, *, limit: int, inherit: float) -> Parked:
        """Move a claimed message to the end of the lock's line, in one step; its turn may come in the same step.

        Args:
            name: the lock.
            holder: the attempt that found it busy; its claim's other locks are freed (rule 5).
            limit: as asked for.
            inherit: seconds for which the lock is kept for the message's task once it is its turn.

        Raises:
            StoreUnavailable: no answer; the message may have moved, and is then known to the broker
                under this claim no more.

        **Failure:** dying before leaves the message in flight, dying after leaves it in the line: in one
        place, whoever dies (G1). It is not counted as an attempt.
        """
