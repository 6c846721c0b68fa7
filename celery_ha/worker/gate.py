"""The gate: the last step in the main process before a task goes to the pool.

``Request.revoked`` is the one method that every way to the pool calls; Celery's strategy redefines
the others without ``super()``.
"""

from __future__ import annotations

import logging
import random
from functools import cache
from typing import TYPE_CHECKING, Any

from billiard.exceptions import Terminated, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from celery_ha.errors import PoisonTask
from celery_ha.locks.task import Busy
from celery_ha.worker.child import NotStarted

if TYPE_CHECKING:
    from celery_ha.worker.node import WorkerNode

logger = logging.getLogger(__name__)

#: Seconds before a task whose lock is busy is given back, doubled each time it comes again here.
BUSY_FIRST, BUSY_MOST = 0.05, 1.0


@cache
def gated(base: type[Request], node: WorkerNode) -> type[Request]:
    """The request class of a task, a user's own included, with the gate in front."""
    if hasattr(base, "passes_gate"):
        return base

    class GatedRequest(base):
        __doc__ = base.__doc__

        def passes_gate(self) -> bool:
            """Ask for the start (rule 1); a claim that may not start is no longer this worker's business."""
            if self.deliveries >= node.config.max_deliveries:
                self.condemn()
                return False
            if node.start(self.claim):
                return True
            self.leave()
            return False

        def revoked(self) -> bool:
            if not node.holds(self.claim):
                # Given back while it waited for a slot: somebody else runs it.
                self.leave()
                return True
            if super().revoked():
                node.locks_ended(self.claim, self.id)
                return True
            # Celery also asks on arrival, for revoked and expired tasks: nothing starts then.
            return self in state.reserved_requests and not self.passes_gate()

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            exc = exc_info.exception
            exc = getattr(exc, "exc", exc)
            if isinstance(exc, NotStarted):
                return self.give_back()
            if isinstance(exc, Busy):
                return self.stand_by()
            if isinstance(exc, (WorkerLostError, Terminated, SystemExit)):
                node.locks_ended(self.claim)  # its child is gone and released nothing
            return super().on_failure(exc_info, *args, **kwargs)

        def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's signature
            super().on_timeout(soft, timeout)
            if not soft:
                node.locks_ended(self.claim)

        @property
        def deliveries(self) -> int:
            """Attempts that started before this one and did not come to an end."""
            return int(self._request_dict.get("ha_deliveries") or 0)

        def condemn(self) -> None:
            """A poison task: tell everybody who waits for it, then keep it among the dead letters (rule 15).

            Off the loop, because errbacks may run where they are called. **Failure:** dying before the
            message has moved has everybody told again by whoever gets it next.
            """
            error = PoisonTask(f"{self.name} was started {self.deliveries} times and never came to an end")
            claim = self.claim
            logger.error("Task %s[%s] goes to the dead letters: %s", self.name, self.id, error)
            self.leave()

            def tell_then_bury() -> None:
                try:
                    self.task.backend.mark_as_failure(
                        self.id, error, request=self._context, store_result=self.store_errors
                    )
                    node.store.locks.ended((claim,), (self.id,))
                finally:
                    node.bury(claim, str(error))

            node.aside(tell_then_bury)

        @property
        def claim(self) -> str:
            return str(self._message.delivery_tag)

        def give_back(self) -> None:
            """To the front of its queue, as an attempt that did not start."""
            node.give_back(self.claim)
            self.leave()

        def leave(self) -> None:
            """Forget the request here; its message is elsewhere or will be found by its owner."""
            self.acknowledged = True
            state.task_ready(self)
            qos = getattr(self._message.channel, "qos", None)
            if qos is not None:
                qos.drop(self.claim)

        def stand_by(self) -> None:
            """The lock is busy: give the message back a little later, without a slot, without a retry."""
            state.task_ready(self)
            node.defer(self.claim)
            node.lend(1)
            delay = min(BUSY_MOST, BUSY_FIRST * 2 ** node.times_busy(self.id)) * random.uniform(0.5, 1)
            node.later(delay, self.stand_down)

        def stand_down(self) -> None:
            node.lend(-1)
            self.give_back()

    return GatedRequest
