"""The tasks that dead workers held, as Flower knows them: by their events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: States in which a task is at a worker. A dead worker sends no event that ends them.
UNDER_WAY = frozenset({"RECEIVED", "STARTED"})
#: How many are remembered.
LIMIT = 500


class Requeued:
    """Tells Flower what nobody else will: that a task is not with its dead worker any more."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Any]] = {}

    def mark(self, state: Any, failovers: Iterable[dict[str, Any]]) -> None:
        """Give tasks of workers that were given up the state RETRY, which any later event replaces.

        On Flower's loop, where its state belongs.

        Args:
            state: Flower's state of events.
            failovers: see :func:`celery_ha.inspect.values.failovers`.
        """
        last: dict[str, dict[str, Any]] = {}
        for failover in failovers:  # the newest first
            last.setdefault(failover["node"], failover)
        if not last:
            return
        for uuid, task in list(state.tasks.items()):
            failover = last.get(task.worker.hostname) if task.worker else None
            # A worker of the same name may have come since.
            if failover and task.state in UNDER_WAY and task.timestamp < failover["fenced_at"]:
                self._requeue(state, uuid, task, failover)

    def listed(self, state: Any) -> list[dict[str, Any]]:
        """Those tasks, the newest first: where each was, to which queues its worker's tasks went, where it is."""
        return [{**told, **_whereabouts(state, uuid, told)} for uuid, told in reversed(self._tasks.items())]

    def _requeue(self, state: Any, uuid: str, task: Any, failover: dict[str, Any]) -> None:
        state.event(
            {
                "type": "task-retried",
                "uuid": uuid,
                "hostname": failover["node"],
                "timestamp": failover["fenced_at"],
                "clock": task.clock,
                # None: this is no sign of life of the worker.
                "local_received": None,
                "exception": f"requeued: {failover['node']} was given up ({failover['reason']})",
            }
        )
        self._tasks.pop(uuid, None)
        self._tasks[uuid] = {
            "task_id": uuid,
            "task": task.name,
            "from": failover["node"],
            "at": failover["fenced_at"],
            "queues": sorted(failover["queues"]),
        }
        while len(self._tasks) > LIMIT:
            del self._tasks[next(iter(self._tasks))]


def _whereabouts(state: Any, uuid: str, told: dict[str, Any]) -> dict[str, Any]:
    task = state.tasks.get(uuid)
    if task is None:
        return {"state": None, "node": None}
    node = task.worker.hostname if task.worker else None
    return {"state": task.state, "node": None if task.state == "RETRY" and node == told["from"] else node}
