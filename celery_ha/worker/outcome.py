"""The end of a unique task frees its key.

Just before the outcome is told, so that whoever has read it may publish the next. Where no outcome is told
(``Ignore``, ``Reject``), the gate does it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from time import monotonic, sleep
from typing import Any

from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.locks.attempt import running
from celery_ha.locks.unique import HEADER
from celery_ha.worker.claimed import ensure_claimed

log = logging.getLogger(__name__)

#: Seconds for which a body's process goes on trying while the store does not answer, and between two tries.
FREE_WITHIN, FREE_AGAIN = 30.0, 0.5


def freeing(ha: Any, tell: Callable[..., Any]) -> Callable[..., Any]:
    """A backend's method that tells how a task ended, after its key was freed.

    A zombie tells nothing (rule 13): not even that its outcome was refused.
    """
    # Every task comes by here: binding the arguments would take longer than all else.
    places = {name: place for place, name in enumerate(inspect.signature(tell).parameters)}

    def given(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = places.get(name, len(args))
        return args[place] if place < len(args) else kwargs.get(name)

    @wraps(tell)
    def told(*args: Any, **kwargs: Any) -> Any:
        if isinstance(given("exc", args, kwargs), Fenced):
            # Celery tells what became of telling the outcome, when the task is no longer the current one.
            return None
        request = given("request", args, kwargs)
        key = getattr(request, HEADER, None)
        if key is not None and getattr(request, "id", None) == (task_id := given("task_id", args, kwargs)):
            _free(ha, key, task_id)
            setattr(request, HEADER, None)
        return tell(*args, **kwargs)

    return told


def _free(ha: Any, key: str, task_id: str) -> None:
    if any(request.id == task_id for _, request in running()):
        # The message of a zombie runs elsewhere by now, under the same id and the same key (rule 13).
        ensure_claimed(ha)
        _free_within(ha, key, task_id)
    elif ha.node is not None:
        ha.node.free_key(key, task_id)


def _free_within(ha: Any, key: str, task_id: str) -> None:
    """Free it, here and now.

    **Failure:** dying before the outcome is told has the message delivered again; its start takes the key again.
    """
    deadline = monotonic() + FREE_WITHIN
    while True:
        try:
            ha.uniques.free_key(key, task_id)
        except StoreUnavailable as error:
            if monotonic() > deadline:
                log.error("The key %r of task %s stays until its ttl: %s", key, task_id, error)  # noqa: TRY400
                return
        else:
            return
        sleep(FREE_AGAIN)
