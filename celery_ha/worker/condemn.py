"""The end of a poison task: tell everybody who waits for it, then keep it among the dead letters (rule 15).

Off the loop, because errbacks may run where they are called. **Failure:** dying before the message
has moved has everybody told again by whoever gets it next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.app.task import Context

from celery_ha.envelope import attempts, embedded, headers
from celery_ha.errors import PoisonTask
from celery_ha.model import Claim

if TYPE_CHECKING:
    from celery_ha.worker.node import WorkerNode


def condemn(node: WorkerNode, request: Any) -> None:
    """Give up a task that was started too often; its request is forgotten already."""
    _give_up(
        node,
        str(request.message.delivery_tag),
        request._context,
        request.task.backend,
        attempts(request.request_dict),
        store=request.store_errors,
    )


def condemn_unopened(node: WorkerNode, app: Any, claim: Claim) -> None:
    """Give up a message that must not be opened, since that may be what kills.

    Its errbacks and its chord are told if they can be read without unpacking anything but JSON.
    """
    found = dict(headers(claim.payload))
    task = app.tasks.get(found.get("task"))
    ignored = found.get("ignore_result")
    if ignored is None:
        ignored = getattr(task, "ignore_result", False)
    _give_up(
        node,
        claim.id,
        Context({**found, **embedded(claim.payload), "properties": {"delivery_tag": claim.id}}),
        app.backend if task is None else task.backend,
        attempts(found),
        store=not ignored or getattr(task, "store_errors_even_if_ignored", False),
    )


def _give_up(node: WorkerNode, claim: str, request: Any, backend: Any, started: int, *, store: bool) -> None:
    error = PoisonTask(f"{request.task} was started {started} times and never came to an end")

    def tell_then_bury() -> None:
        try:
            backend.mark_as_failure(request.id, error, request=request, store_result=store)
            node.store.locks.ended((claim,), (str(request.id),))
        finally:
            node.claims.bury(claim, str(error))
            node.announcer.buried(claim, str(error), "poison", request.id, request.task)

    node.aside.run(tell_then_bury)
