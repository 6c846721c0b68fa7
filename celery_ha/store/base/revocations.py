"""The port to what was revoked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Revocations(ABC):
    """Ids of tasks that must not run, for workers that were not there when it was said (rule 19)."""

    @abstractmethod
    def remember(self, tasks: Sequence[str], ttl: float) -> None:
        """Remember them for ``ttl`` seconds; repeating makes it longer.

        **Failure:** dying before leaves it to the other workers that heard it.
        """

    @abstractmethod
    def current(self) -> frozenset[str]:
        """All that are remembered."""
