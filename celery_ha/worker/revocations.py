"""Keeps revocations in the store, so that a worker that was not there knows them too (rule 19).

Celery tells them by broadcast, and to a worker that starts by those that live (mingle): whoever is restarting,
cut off or started without mingle misses them, and when the last worker dies they are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

from celery.worker import state
from celery.worker.control import Panel

from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.store.base import Revocations

logger = logging.getLogger(__name__)

#: Those of Celery's that revoke by id.
COMMANDS = ("revoke", "terminate")
#: Seconds for which a command does not wait for a store that has not answered.
QUIET = 5.0


class Shared:
    """Stands in for ``update`` of Celery's set of revoked tasks, and for the control commands that call it.

    Args:
        revocations: the store.
        insist: makes a call soon, off the loop, and again until the store answers.
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
        self._update, self._plain = revoked.update, {name: commands[name] for name in COMMANDS}
        self._closed = self._commanded = False
        #: Why the store does not know what a command has revoked.
        self._away = ""
        self._quiet_until = 0.0
        self._news: frozenset[str] | None = None
        revoked.update = self.update
        commands.update({name: partial(self._command, name) for name in COMMANDS})

    def update(self, other: Iterable[str]) -> None:
        """Revoke tasks, here and for all who come later; what neighbours tell goes to the store in its own time.

        **If the worker dies** before the store has answered, those who come later do not know.
        """
        told = list(other)
        new = told if self._commanded else [task for task in told if task not in self._revoked]
        self._update(told)
        if not new or self._closed:
            return
        if not self._commanded:
            self._remember_soon(new)
        elif monotonic() < self._quiet_until:
            self._away = "the store has just not answered"
            self._remember_soon(new)
        else:
            self._remember_now(new)

    def _command(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Celery's ``revoke`` or ``terminate``.

        Returns:
            Its reply; an error if the store did not answer: this worker has revoked the tasks and goes on telling the
            store, but if it dies before, nobody knows. Whoever is told ``ok`` may rely on it.
        """
        self._away, self._commanded = "", True
        try:
            reply = self._plain[name](*args, **kwargs)
        finally:
            self._commanded = False
        if not self._away:
            return reply
        why = f"Revoked here, but not kept for workers that come later: {self._away}. Revoke again."
        logger.warning(why)
        return {"error": why}

    def _remember(self, tasks: list[str]) -> None:
        self._revocations.remember(tasks, state.REVOKE_EXPIRES)

    def _remember_soon(self, tasks: list[str]) -> None:
        self._insist(lambda: self._remember(tasks))

    def _remember_now(self, tasks: list[str]) -> None:
        """The loop waits for it, but not again and again: tasks run meanwhile."""
        try:
            self._remember(tasks)
        except StoreUnavailable as exc:
            self._away, self._quiet_until = str(exc) or "no answer", monotonic() + QUIET
            self._remember_soon(tasks)
        except StoreError as exc:
            self._away = str(exc)

    def read(self) -> None:
        """Learn what was revoked while we did not listen; before consuming starts.

        Raises:
            StoreUnavailable: what may not run is not known.
        """
        self._learn(self._revocations.current())

    def read_again(self) -> None:
        """Ask the same later, off the loop, until the store answers; :meth:`learn` takes it in."""

        def call() -> None:
            self._news = self._revocations.current()

        self._insist(call)

    def learn(self) -> None:
        """On the loop: Celery's set is nobody else's."""
        news, self._news = self._news, None
        if news is not None:
            self._learn(news)

    def _learn(self, kept: frozenset[str]) -> None:
        """And tell a store that has lost its memory."""
        lacking = [task for task in self._revoked if task not in kept]
        self._update(kept)
        if lacking and not self._closed:
            self._remember_soon(lacking)

    def close(self) -> None:
        """Tell the store nothing more: another worker of this process has another one."""
        self._closed = True
        if self._revoked.update == self.update:
            self._revoked.update = self._update
            self._commands.update(self._plain)
