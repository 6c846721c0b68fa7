"""The tasks that dead workers held, as Flower knows them: by their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: States in which a task is at a worker. A dead worker sends no event that ends them.
UNDER_WAY = frozenset({"RECEIVED", "STARTED"})
#: How many are remembered.
LIMIT = 500


class Requeued:
    """Tells Flower what nobody else will: that a task is not with its dead worker any more."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Any]] = {}
        #: Node by task, of those that were under way at the last look.
        self._held: dict[str, str] = {}
        #: Leases whose failovers were seen.
        self._seen: set[str] = set()

    def mark(self, state: Any, failovers: Sequence[dict[str, Any]]) -> None:
        """Give tasks of workers that were given up the state RETRY, which any later event replaces.

        On Flower's loop, where its state belongs.

        Args:
            state: Flower's state of events.
            failovers: see :func:`celery_ha.inspect.values.failovers`.
        """
        last = {failover["node"]: failover for failover in reversed(failovers)}  # the newest comes first
        before, self._held = self._held, {}
        new = {failover["node"] for failover in failovers if failover["lease"] not in self._seen}
        self._seen = {failover["lease"] for failover in failovers}
        for uuid, task in list(state.tasks.items()):
            node = task.worker.hostname if task.worker else None
            failover = last.get(node)
            # A worker of the same name may have come since.
            if failover and task.state in UNDER_WAY and task.timestamp < failover["fenced_at"]:
                state.event(_event(uuid, task, failover))
                self._note(uuid, task, failover)
            elif before.get(uuid) in new and node != before[uuid]:
                self._note(uuid, task, last[before[uuid]])  # somebody else has it already
            if node and task.state in UNDER_WAY:
                self._held[uuid] = node

    def listed(self, state: Any) -> list[dict[str, Any]]:
        """Those tasks, the newest first: where each was, to which queues its worker's tasks went, where it is."""
        return [{**told, **_whereabouts(state, uuid)} for uuid, told in reversed(self._tasks.items())]

    def _note(self, uuid: str, task: Any, failover: dict[str, Any]) -> None:
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


def _event(uuid: str, task: Any, failover: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "task-retried",
        "uuid": uuid,
        "hostname": failover["node"],
        "timestamp": failover["fenced_at"],
        "clock": task.clock,
        # None: this is no sign of life of the worker.
        "local_received": None,
        "exception": f"requeued: {failover['node']} was given up ({failover['reason']})",
    }


def _whereabouts(state: Any, uuid: str) -> dict[str, Any]:
    """The state of a task and its node; None: it waits for one, or Flower has forgotten it."""
    task = state.tasks.get(uuid)
    there = task is not None and task.worker and task.state != "RETRY"
    return {"state": task.state if task else None, "node": task.worker.hostname if there else None}
