"""Who asks for a lock: the attempt at a task that runs here now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# The stack itself: `current_task` alone shows the task that was called last, not the message behind it.
from celery._state import _task_stack

from celery_ha.errors import ConfigError
from celery_ha.locks.lock import Lock
from celery_ha.locks.report import Report
from celery_ha.locks.terms import Terms
from celery_ha.model import Holder
from celery_ha.store.base import LockStore
from celery_ha.telling.teller import Teller


@dataclass(frozen=True)
class Attempt:
    """One delivery of a task that is being run by this thread."""

    holder: Holder
    locks: LockStore
    #: Seconds for which a lock is kept for the task if this attempt dies.
    inherit: float
    #: Whether the message is still in flight, so that it can be given back.
    acks_late: bool
    #: Whether the lease is given up, as far as this process knows; costs nothing to ask.
    lost: Callable[[], bool] = bool
    #: Tells what becomes of its locks, and how long they took.
    teller: Teller = field(default_factory=Teller, compare=False, repr=False)
    #: Name of the task; empty outside of tasks.
    name: str = ""

    def lock(self, name: str, terms: Terms) -> Lock:
        """A lock of its own, not asked for yet."""
        return Lock(
            self.locks,
            name,
            self.holder,
            inherit=self.inherit,
            limit=terms.limit,
            max_hold=terms.max_hold,
            report=Report(self.teller, self.name),
        )


def current_attempt() -> Attempt | None:
    """Find the delivery on whose behalf this code runs.

    A task that is called like a function, or eagerly, inside another acts for the message of the other.

    Returns:
        None outside of a worker: a plain call, ``apply()``, ``task_always_eager``.

    Raises:
        ConfigError: the task came by a message, but not through celery_ha.
    """
    for task, request in running():
        if not request.called_directly and not request.is_eager:
            return _attempt(task, request)
    return None


def running() -> Iterator[tuple[Any, Any]]:
    """Tasks on this thread's stack with their requests, innermost first."""
    for task in reversed(_task_stack.stack):
        for request in reversed(task.request_stack.stack):
            yield task, request


def _attempt(task: Any, request: Any) -> Attempt:
    ha = getattr(task.app, "ha", None)
    if ha is None:
        raise ConfigError(f"task {task.name} takes a lock, but its app has no celery_ha: write HA(app)")
    # Rule 11: the lease is the one the message was claimed under, not the node's current one.
    claim = str((request.properties or {}).get("delivery_tag", ""))
    lease, _, number = claim.rpartition(".")
    if not lease or not number.isdigit():
        raise ConfigError(
            f"task {task.name} takes a lock, but its message was not claimed under a lease (delivery tag {claim!r}): "
            "run it by a worker with HA(app)"
        )
    return Attempt(
        holder=Holder(lease, claim, str(request.id)),
        locks=ha.locks,
        inherit=ha.config.lock_inherit,
        acks_late=bool(task.acks_late),
        lost=lambda: ha.has_lost(lease),
        teller=ha.teller,
        name=str(task.name),
    )
