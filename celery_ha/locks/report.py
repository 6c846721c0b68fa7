"""What is told of one lock: that it is lost, how long it was waited for and held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from celery_ha.model import Grant, Holder
from celery_ha.telling import news
from celery_ha.telling.spans import past, span
from celery_ha.telling.teller import Teller


class _Told(Protocol):
    """A lock, as far as it is told of."""

    name: str
    holder: Holder


class Report:
    """Of one lock, in the process that holds it.

    Args:
        teller: who tells; None: the log.
        task: name of the task that takes it; empty outside of tasks.
    """

    def __init__(self, teller: Teller | None = None, task: str = "") -> None:
        self._teller = teller or Teller()
        self._task = task
        self._since: float | None = None
        self._told = False

    @contextmanager
    def asking(self, name: str) -> Iterator[Callable[[Grant], Grant]]:
        """Around a request for the lock ``name``; what it yields is called with the answer, and returns it."""
        asked = monotonic()
        with span("celery_ha.lock.wait", lock=name) as attributes:

            def answer(grant: Grant) -> Grant:
                outcome = "busy" if grant.token is None else "granted"
                attributes["outcome"] = outcome
                self._teller.measure("lock_wait", monotonic() - asked, task=self._task, outcome=outcome)
                if grant.token is not None:
                    attributes["token"] = grant.token
                    self._since, self._told = monotonic(), False
                if grant.in_line is not None:  # by the message, which held no slot: in another process, maybe
                    past("celery_ha.lock.line", grant.in_line, lock=name)
                    self._teller.measure("lock_line", grant.in_line, task=self._task)
                return grant

            yield answer

    def released(self) -> None:
        """It is given back, whatever the store will say to that."""
        if self._since is not None:
            self._teller.measure("lock_hold", monotonic() - self._since, task=self._task)
            self._since = None

    def lost(self, lock: _Told, token: int, cause: str, reason: str) -> None:
        """It is gone although its holder has not given it back; told once, whoever notices first."""
        if self._told:
            return
        self._told = True
        self._teller.tell(
            news.LOCK_LOST,
            lease=lock.holder.lease,
            reason=reason,
            claim=lock.holder.claim,
            task_id=lock.holder.task,
            lock=lock.name,
            token=token,
            cause=cause,
        )
