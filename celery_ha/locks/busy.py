"""What a task raises whose lock is not granted."""

from __future__ import annotations

from celery.exceptions import Ignore, Reject

from celery_ha.errors import LockBusy
from celery_ha.locks.lock import Lock, busy_message
from celery_ha.model import Grant


class Busy(Reject, Ignore):
    """The message goes back because a lock is busy.

    An :exc:`~celery.exceptions.Ignore` as well, for the one place that asks: ``autoretry_for=(Exception,)`` would
    take a mere rejection for a failure and spend a retry on it.

    A plain worker puts it back at once; the gate of a celery_ha worker has it wait in line for the lock
    or, where it cannot, gives it back a little later.
    """

    def __init__(self, lock: str, why: str = "", doubtful: bool = False, limit: int = 0) -> None:  # noqa: FBT001, FBT002
        super().__init__(why or f"the lock {lock!r} is busy", requeue=True)
        #: Name of the lock.
        self.lock = lock
        #: The store's answer was lost: it may have granted the lock.
        self.doubtful = doubtful
        #: How many may hold it; 0: it is not known who does, so there is no line to wait in.
        self.limit = limit

    def __reduce__(self) -> tuple[type[Busy], tuple[str, str, bool, int]]:
        return type(self), (self.lock, str(self.reason), self.doubtful, self.limit)


def refusal(lock: Lock, grant: Grant, *, on_busy: str, acks_late: bool) -> Exception:
    """Make what a task raises when a lock is busy.

    Args:
        lock: the lock.
        grant: the store's answer.
        on_busy: see :func:`~celery_ha.locks.task.locked_task`.
        acks_late: whether the message can still be given back.
    """
    message = busy_message(lock.name, grant.holder)
    if grant.holder is None and acks_late:
        return Busy(lock.name, message)
    if on_busy == "requeue":
        return Busy(lock.name, message, limit=lock.limit)
    return Ignore(message) if on_busy == "skip" else LockBusy(message)
