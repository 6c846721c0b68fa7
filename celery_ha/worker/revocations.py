"""Keeps revocations in the store, so that a worker that was not there knows them too (rule 19).

Celery tells them by broadcast, and to a worker that starts by those that live (mingle): whoever is restarting,
cut off or started without mingle misses them, and when the last worker dies they are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import state

from celery_ha.errors import StoreUnavailable
from celery_ha.store.base import Revocations

logger = logging.getLogger(__name__)


class Shared:
    """Stands in for ``update`` of Celery's set of revoked tasks, which its control command calls.

    Args:
        revocations: the store.
        insist: makes a call soon, and again until the store answers.
        revoked: the set.
    """

    def __init__(
        self,
        revocations: Revocations,
        insist: Callable[[Callable[[], object]], None],
        revoked: Any = state.revoked,
    ) -> None:
        self._revocations = revocations
        self._insist = insist
        self._revoked = revoked
        self._update = revoked.update
        revoked.update = self.update

    def update(self, other: Iterable[str]) -> None:
        """Revoke tasks, here and for all who come later."""
        other = list(other)
        self._update(other)
        if other:
            self._insist(lambda: self._revocations.remember(other, state.REVOKE_EXPIRES))

    def read(self) -> None:
        """Learn what was revoked while we did not listen; before consuming starts.

        **Failure:** a store that does not answer leaves it to mingle, as ever.
        """
        try:
            self._update(self._revocations.current())
        except StoreUnavailable as exc:
            logger.warning("Could not learn which tasks were revoked: %s", exc)
