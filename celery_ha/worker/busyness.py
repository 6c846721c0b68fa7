"""How often tasks found their locks busy on a node."""

from __future__ import annotations

from collections import OrderedDict

#: Task ids that are remembered.
MEMORY = 10_000


class Busyness:
    """A count by task id, of the tasks that were busy last."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, int] = OrderedDict()

    def again(self, task: str) -> int:
        """It is busy now; returns how often it was before."""
        times = self._times.pop(task, -1) + 1
        self._times[task] = times
        if len(self._times) > MEMORY:
            self._times.popitem(last=False)
        return times
