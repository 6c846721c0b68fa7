"""One call for a lock, which may wait in line, lose answers, and be given up."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from celery_ha.errors import StoreUnavailable
from celery_ha.model import Grant

#: Seconds before a lock that cannot be granted to anybody now, or a store that does not answer, is asked again.
AGAIN = 0.1


class Asking(ABC):
    """A caller's question for a lock until it is decided, whatever store is asked.

    Args:
        wait: seconds to stand in line; 0: it does not.
    """

    def __init__(self, wait: float) -> None:
        self._waits = wait > 0
        self._deadline = time.monotonic() + wait

    def decide(self) -> Grant:
        """Ask until it is granted, or there is nothing to wait for.

        Raises:
            StoreUnavailable: the store did not answer, not until the deadline either.

        **Failure:** dying leaves what was granted to the settlement of the lease.
        """
        lost = False
        while True:
            try:
                grant = self._once(lost=lost)
                lost = False
            except StoreUnavailable:
                if not self._left():
                    raise
                lost, grant = True, None
            if grant is not None:
                return grant
            time.sleep(min(AGAIN, self._left()))

    @abstractmethod
    def forget(self) -> None:
        """Leave the line and give back what was granted; nothing is granted to this call any more.

        Raises:
            StoreUnavailable: no answer; ask again.
        """

    @abstractmethod
    def _once(self, *, lost: bool) -> Grant | None:
        """Ask, and stand in line until it is decided; None: ask again.

        Args:
            lost: the answer to the last question was.
        """

    def _left(self) -> float:
        """Seconds left to wait."""
        return max(0.0, self._deadline - time.monotonic()) if self._waits else 0.0
