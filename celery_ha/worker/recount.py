"""Parts of a chord that have a result and were not counted: they died in between.

Celery takes the result for the end of such a part, whether its child was lost or its message came again, and its chord
would hang.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import states
from celery.app.task import Context
from celery.utils.saferepr import saferepr

from celery_ha.worker.chord import counts_chords

if TYPE_CHECKING:
    from celery_ha.worker.node import WorkerNode

log = logging.getLogger(__name__)


def count_late(node: WorkerNode, request: Any, *, leave: Callable[[Any], None]) -> bool:
    """Count a part whose child was lost after it had stored its result, and acknowledge its message then.

    Off the loop, because whoever counts the last part publishes the body.

    Args:
        node: of whose pool the child was.
        request: the part's.
        leave: forgets a request, and nothing else.

    Returns:
        False: it is no such part.

    **Failure:** dying before it is counted has the message delivered again; so has an error.
    """
    claim, backend = str(request.message.delivery_tag), request.task.backend
    cancelled = request._already_cancelled or request._already_revoked
    if cancelled or not request.task.acks_late or not request.chord or not counts_chords(backend):
        return False
    stored = getattr(request, "_success_was_stored", None)  # since Celery 5.7
    meta = stored() if stored is not None and node.claims.holds(claim) else None
    if not meta:
        return False

    def count_then_ack() -> None:
        try:
            backend.on_chord_part_return(request._context, states.SUCCESS, meta["result"])
        except Exception:
            log.exception("Task %s runs again: it was not counted for its chord", request.id)
            node.claims.interrupted(claim)
        else:
            node.claims.ended(claim)

    leave(request)
    log.warning("Task %s succeeded before its process was lost; it is counted for its chord now", request.id)
    request.send_event("task-succeeded", result=saferepr(meta["result"], request.task.resultrepr_maxsize), runtime=None)
    node.aside.run(count_then_ack)
    return True


def count_again(app: Any, name: str, request: dict[str, Any]) -> None:
    """Count a part that Celery did not run because its result was there (``worker_deduplicate_successful_tasks``).

    It may have died between its result and its count. Counting twice changes nothing.

    Args:
        app: the app.
        name: of the task.
        request: as it was given to Celery, which has unpacked the message into it.

    **Failure:** dying before it is counted has the message delivered again, since it is acknowledged after this.
    """
    again = (request.get("delivery_info") or {}).get("redelivered")
    if not (again and request.get("chord") and app.conf.worker_deduplicate_successful_tasks):
        return
    backend = app.tasks[name].backend
    if counts_chords(backend):
        meta = backend.get_task_meta(request["id"])
        if meta["status"] == states.SUCCESS:
            backend.on_chord_part_return(Context(request), states.SUCCESS, meta["result"])
