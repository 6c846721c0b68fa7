"""Publishing a unique task: first the key, then the message.

``send_task`` is where every way to publish ends: ``Task.apply_async``, signatures, beat, ``Task.retry``, and the
steps and callbacks that a worker publishes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from time import sleep
from typing import Any

from celery.utils import uuid

from celery_ha.errors import StoreUnavailable
from celery_ha.locks.attempt import running
from celery_ha.locks.unique import HEADER, TTL, Unique, handed_over, key_in, key_of, unique_of
from celery_ha.model import Reservation

log = logging.getLogger(__name__)

#: Seconds between two looks at a key whose publisher has not come back.
LOOK_AGAIN = 0.02


def publishing(ha: Any, send: Callable[..., Any]) -> Callable[..., Any]:
    """``app.send_task`` that publishes no duplicate of a unique task."""
    signature = inspect.signature(send)

    @wraps(send)
    def send_unique(*given: Any, **options: Any) -> Any:
        name = given[0] if given else options["name"]
        task = options.get("task_type") or _registered(ha.app, name)
        spec = unique_of(task)
        if spec is None and options.get(HEADER) is None:
            options.pop(HEADER, None)
            return send(*given, **options)
        call = signature.bind(*given, **options)
        told = call.arguments.setdefault("options", {}).pop(HEADER, None)
        args, kwargs = call.arguments.get("args") or (), call.arguments.get("kwargs") or {}
        key = key_in(name, told) if spec is None or told is not None else key_of(name, spec, task, args, kwargs)
        if key is None:
            return send(*call.args, **call.kwargs)
        return _Publish(ha, key, spec, call).run(send)

    return send_unique


def _registered(app: Any, name: str) -> Any:
    # Reading `tasks` evaluates tasks that are still pending; without autofinalize it would raise.
    tasks = app.tasks if app.finalized or app.autofinalize else app._tasks  # noqa: SLF001
    return tasks.get(name)


class _Publish:
    """One call of a unique task.

    Args:
        ha: the installed HA.
        key: of the call.
        spec: None: this process does not know the task.
        call: bound to the signature of ``send_task``; gets a task id and the header.
    """

    def __init__(self, ha: Any, key: str, spec: Unique | None, call: inspect.BoundArguments) -> None:
        self._app, self._uniques, self._key, self._call = ha.app, ha.uniques, key, call
        self._within = ha.config.publish_within
        self._ttl = TTL if spec is None else spec.ttl
        self._goes_unasked = spec is not None and spec.on_store_down == "publish"
        asked = call.arguments
        self._must_go = _is_awaited(asked)
        self._id = asked["task_id"] = asked.get("task_id") or uuid()
        #: The task that publishes itself once more: a retry, or its own replacement.
        self._again = _running_as(self._id)
        self._must_go = self._must_go or self._again is not None or bool(asked.get("retries"))
        options = asked["options"]
        options["headers"] = {**(options.get("headers") or {}), HEADER: key}

    def run(self, send: Callable[..., Any]) -> Any:
        """Publish it, or return the result of the one that is under way.

        **Failure:** if publishing raises, the key is free again.
        """
        found = self._reserve()
        if found is not None and found.task != self._id and not self._must_go:
            return (self._call.arguments.get("result_cls") or self._app.AsyncResult)(found.task)
        try:
            result = send(*self._call.args, **self._call.kwargs)
        except BaseException:
            # A key that was published before belongs to the message that is under way.
            if found is not None and not found.published:
                with suppress(StoreUnavailable):
                    self._uniques.free_key(self._key, self._id)
            raise
        if self._again is not None:
            self._hand_over(self._again)
        self._keep()
        return result

    def _reserve(self) -> Reservation | None:
        """Who has the key; None: nobody knows, and it is published all the same."""
        try:
            while True:
                found: Reservation = self._uniques.claim_key(self._key, self._id, self._within)
                # One that is not published may never be: its publisher is asked for again until it is, or is gone.
                if found.task == self._id or found.published or self._must_go:
                    return found
                sleep(LOOK_AGAIN)
        except StoreUnavailable as error:
            if not (self._goes_unasked or self._must_go):
                raise
            log.warning("Publishing %s without its key %r: %s", self._call.arguments["name"], self._key, error)
            return None

    def _hand_over(self, request: Any) -> None:
        """The key goes with the new message: the end of this attempt must not free it."""
        before = request.get(HEADER)
        setattr(request, HEADER, None)
        handed_over.set(True)
        if before is not None and before != self._key:  # called again with other arguments
            with suppress(StoreUnavailable):
                self._uniques.free_key(before, self._id)

    def _keep(self) -> None:
        try:
            self._uniques.keep_key(self._key, self._id, self._ttl)
        except StoreUnavailable as error:  # its start takes it again
            log.warning("The key %r is kept for %s s only: %s", self._key, self._within, error)


def _is_awaited(asked: dict[str, Any]) -> bool:
    """Whether others wait for this very id: a member of a chord, a group or a chain.

    The last step of a chain has no chain left; it is told by its id, which was made before it was called.
    """
    return bool(
        asked.get("chord")
        or asked.get("group_id")
        or asked.get("chain")
        or (asked.get("task_id") and asked.get("parent_id"))
    )


def _running_as(task_id: str) -> Any:
    """The request of this id that this thread runs, or None."""
    return next((request for _, request in running() if request.id == task_id and not request.called_directly), None)
