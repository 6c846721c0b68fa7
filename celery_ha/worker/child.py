"""What runs in the process (or thread) that runs a task's body."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import current_app
from celery.exceptions import Reject, WorkerShutdown, WorkerTerminate

from celery_ha.locks.unique import HANDED_OVER, handed_over
from celery_ha.worker.recount import count_again

#: Whose exceptions end a greenlet, or say that its time is over.
GREEN = ("gevent", "greenlet", "eventlet")


class NotStarted(Reject):
    """The lease was not trusted at the last moment: the body did not run."""


def run(target: Callable[..., Any], *args: Any) -> Any:
    """Run Celery's trace function unless the request's lease is no longer trusted (rules 1 and 11).

    Args:
        target: what Celery gave the pool, with ``(task name, task id, request, ...)`` as arguments.

    A task that is acked early runs whatever the page says: its message is gone, so refusing would lose
    it. That such a task may run twice after a freeze is the price of acking early.

    Returns:
        What ``target`` returns; or a failure with :class:`NotStarted`, which the gate turns into a
        message given back.
    """
    if _may_run(args[0], args[2]):
        handed_over.set(False)
        done = _contained(target, args)
        if handed_over.get() and isinstance(done[1], ExceptionInfo):
            setattr(getattr(done[1].exception, "exc", done[1].exception), HANDED_OVER, True)
        count_again(current_app, args[0], args[2])
        return done
    try:
        _refuse()
    except NotStarted:
        return 1, ExceptionInfo(), 0.0


def _contained(target: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Run it; in the main process, what would end a child is a failure of the task, as the loss of its child is.

    Celery's pools of threads and greenlets cannot tell of it: the task would take its slot for ever.
    """
    try:
        return target(*args)
    except (Exception, WorkerShutdown, WorkerTerminate):
        raise
    except BaseException as exc:
        node = getattr(getattr(current_app, "ha", None), "node", None)
        if node is None or node.pid != os.getpid() or type(exc).__module__.partition(".")[0] in GREEN:
            raise
        lost = exc
    try:
        _lose(lost)
    except WorkerLostError:
        return 1, ExceptionInfo(), 0.0


def _lose(why: BaseException) -> None:
    raise WorkerLostError(repr(why)) from why


def _refuse() -> None:
    raise NotStarted("the lease was no longer trusted when the body was about to run", requeue=True)


def _may_run(task: str, request: dict[str, Any]) -> bool:
    node = getattr(getattr(current_app, "ha", None), "node", None)
    if node is None or not current_app.tasks[task].acks_late:
        return True  # acked when it was handed to this process: if it does not run now, nobody runs it
    claim = str((request.get("properties") or {}).get("delivery_tag", ""))
    lease, dot, _ = claim.rpartition(".")
    return not dot or node.page.trusts(lease)
