"""Keeps revocations in the store, so that a worker that was not there knows them too (rule 19).

Celery tells them by broadcast, and to a worker that starts by those that live (mingle): whoever is restarting,
cut off or started without mingle misses them, and when the last worker dies they are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import state
from celery.worker.control import Panel

from celery_ha.errors import StoreUnavailable
from celery_ha.store.base import Revocations


class Shared:
    """Stands in for ``update`` of Celery's set of revoked tasks, and for the control command that calls it.

    Args:
        revocations: the store.
        insist: makes a call soon, and again until the store answers.
        revoked: the set.
        commands: Celery's control commands.
    """

    def __init__(
        self,
        revocations: Revocations,
        insist: Callable[[Callable[[], object]], None],
        revoked: Any = state.revoked,
        commands: dict[str, Any] = Panel.data,
    ) -> None:
        self._revocations = revocations
        self._insist = insist
        self._revoked, self._commands = revoked, commands
        self._update, self._revoke = revoked.update, commands["revoke"]
        self._away = ""
        revoked.update, commands["revoke"] = self.update, self.revoke

    def close(self) -> None:
        """Celery's own again: another worker of this process has another store."""
        self._revoked.update, self._commands["revoke"] = self._update, self._revoke

    def update(self, other: Iterable[str]) -> None:
        """Revoke tasks, here and for all who come later.

        **If the worker dies** before the store has answered, those who come later do not know.
        """
        other = list(other)
        self._update(other)
        if not other:
            return

        def remember() -> None:
            self._revocations.remember(other, state.REVOKE_EXPIRES)

        try:
            remember()
        except StoreUnavailable as exc:
            self._away = str(exc) or "the store does not answer"
            self._insist(remember)

    def revoke(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's command ``revoke``.

        Returns:
            Its reply; an error if the store did not answer: this worker has revoked the tasks and goes on telling the
            store, but if it dies before, nobody knows. Whoever is told ``ok`` may rely on it.
        """
        self._away = ""
        reply = self._revoke(*args, **kwargs)
        if not self._away:
            return reply
        return {"error": f"Revoked here, but not kept for workers that come later: {self._away}. Revoke again."}

    def read(self) -> None:
        """Learn what was revoked while we did not listen; before consuming starts.

        Raises:
            StoreUnavailable: what may not run is not known.
        """
        self._update(self._revocations.current())

    def read_again(self) -> None:
        """The same, later, and until the store answers."""
        try:
            self.read()
        except StoreUnavailable:
            self._insist(self.read)
