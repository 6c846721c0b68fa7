"""Sends the tasks of a schedule so that a repetition is known as one."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_OID, uuid5

from kombu.exceptions import OperationalError

from celery_ha.model import Firing


def ids(prefix: str, firing: Firing) -> tuple[str, str]:
    """The task id and the publish id of a firing, the same however often it is sent.

    A firing is known by its number in the term that claimed it: a store that lost its memory counts from one again,
    in another term.

    Args:
        prefix: tells the schedules of two apps on one broker apart.
        firing: a claimed one.
    """
    name = uuid5(NAMESPACE_OID, f"{prefix}/{firing.entry}/{firing.term}").hex
    return str(uuid5(NAMESPACE_OID, f"{name}/{firing.number}")), f"{name}.{firing.number}"


class Outbox:
    """Sends through a scheduler's own ``apply_entry``, which logs, and which others hook into.

    Args:
        scheduler: Celery's or another.
        prefix: as of :func:`ids`.
    """

    def __init__(self, scheduler: Any, prefix: str) -> None:
        self._scheduler = scheduler
        self._prefix = prefix
        self._error: BaseException | None = None
        # apply_entry keeps errors to itself.
        self._apply_async = scheduler.apply_async
        scheduler.apply_async = self._watched

    def send(self, entry: Any, firing: Firing) -> bool:
        """Send a firing; every time it is the same message to the broker.

        Returns:
            False: the broker was not reached. An entry that cannot be sent at all (arguments that have no text
            form, say) counts as sent, as it does with Celery: it is logged, and the next firing may do better.

        **Failure:** dying before the broker has it sends nothing.
        """
        self._error = None
        try:
            self._scheduler.apply_entry(self._labelled(entry, firing), producer=self._scheduler.producer)
        except OperationalError as error:  # from connecting
            self._error = error
        return not isinstance(self._error, OperationalError)

    def _labelled(self, entry: Any, firing: Firing) -> Any:
        """The entry with the ids of this firing.

        What is no option of Celery's becomes a property of the message, and the channel keeps a publish id that
        is there.
        """
        task_id, publish_id = ids(self._prefix, firing)
        options = {"task_id": task_id, **(entry.options or {}), "ha_publish_id": publish_id}
        labelled = object.__new__(type(entry))
        labelled.__dict__.update(entry.__dict__, options=options)
        return labelled

    def _watched(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._apply_async(*args, **kwargs)
        except Exception as error:
            # What Celery raises hides what happened in its context.
            self._error = error.__cause__ or error.__context__ or error
            raise
