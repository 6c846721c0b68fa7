"""What a running task sends into the world is checked against its claim first (rule 13).

A zombie's task, paused and woken after its message has moved on, must write no result and publish
nothing: the same task runs elsewhere by now. While the lease is trusted nothing has moved, so the
check costs a look at a page of memory; only in doubt is the broker asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import monotonic, sleep
from typing import Any

from celery._state import get_current_worker_task

from celery_ha.errors import Fenced, StoreUnavailable

#: Seconds between two questions while the broker does not answer.
AGAIN = 0.2
#: Seconds of silence after which the answer is taken to be no.
GIVE_UP = 300.0


def ensure_claimed(ha: Any) -> None:
    """Return if the current task, if there is one, still has its claim.

    A task that was acked before it ran runs only once whatever happens, and may go on.

    Raises:
        Fenced: the message has moved on, or the broker was silent for too long to tell.
    """
    task = get_current_worker_task()
    node = getattr(ha, "node", None)
    if task is None or node is None or not task.acks_late:
        return
    claim = str((task.request.properties or {}).get("delivery_tag", ""))
    lease, dot, _ = claim.rpartition(".")
    if not dot or node.page.trusts(lease):
        return
    deadline = monotonic() + GIVE_UP
    while not node.page.trusts(lease):
        still = _ask(ha, lease, claim)
        if still:
            return
        if still is not None or monotonic() > deadline:
            why = "was given to somebody else while it ran" if still is False else "may be somebody else's by now"
            raise Fenced(f"task {task.request.id} {why}; its outcome is dropped")
        sleep(AGAIN)


def is_held(ha: Any, claim: str) -> bool:
    """Whether a message is still in the hands of whoever claimed it.

    A task's process waits for an answer, nobody else does; without one the answer is no.
    """
    lease = claim.rpartition(".")[0]
    deadline = monotonic() + (0.0 if get_current_worker_task() is None else GIVE_UP)
    while (held := _ask(ha, lease, claim)) is None and monotonic() < deadline:
        sleep(AGAIN)
    return bool(held)


def _ask(ha: Any, lease: str, claim: str) -> bool | None:
    """Whether the claim is still ours; None: no answer."""
    try:
        return bool(ha.confirm(lease, claim))
    except StoreUnavailable:
        return None


def guarded(ha: Any, write: Callable[..., Any]) -> Callable[..., Any]:
    """``write``, refused for a task whose message has moved on."""

    @wraps(write)
    def checked(*args: Any, **kwargs: Any) -> Any:
        ensure_claimed(ha)
        return write(*args, **kwargs)

    return checked
