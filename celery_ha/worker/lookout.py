"""The consumer's step that looks out for messages that wait in vain; see :mod:`celery_ha.vigil`."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from celery import bootsteps

from celery_ha.brokers.backlog import Backlog, backlog_of
from celery_ha.errors import Fenced
from celery_ha.vigil import Sight, Vigil, doubtful, interval, stuck, watch
from celery_ha.worker.node import WorkerNode

logger = logging.getLogger(__name__)


class Lookout:
    """Looks now and then, from the loop; asks the broker off it.

    Args:
        consumer: Celery's.
        node: of the same worker.
        backlog: counts what waits.
    """

    def __init__(self, consumer: Any, node: WorkerNode, backlog: Backlog) -> None:
        #: Looks that were taken.
        self.looks = 0
        self._consumer = consumer
        self._node = node
        self._backlog = backlog
        self._after = node.config.stuck_after
        self._asking = False
        self._vigil = Vigil(node.reception.begin())

    def look(self) -> None:
        """On the loop: ask only about what was not heard of lately, and only where there is room."""
        self.looks += 1
        if self._asking:
            return  # the answer is late, so the next look will be, and begins afresh
        now, served = monotonic(), dict(self._node.reception.served)
        if not self._room():
            self._add(Sight(False, {}, served), now)
            return
        queues = doubtful(self._queues(), served, self._vigil.began, now, self._after)
        if not queues:
            self._add(Sight(True, {}, served), now)
            return
        self._asking = True
        self._node.aside.run(lambda: self._ask(queues))

    def _ask(self, queues: tuple[str, ...]) -> None:
        try:
            waiting = self._backlog.waiting(queues)
        except self._backlog.errors as exc:  # what nobody answers proves nothing
            logger.debug("What waits is not known: %s", exc)
            waiting = None
        finally:
            self._asking = False
        # Room and service as they are after the answer: what it told of may have come meanwhile.
        self._add(Sight(self._room(), waiting, dict(self._node.reception.served)), monotonic())

    def _add(self, sight: Sight, now: float) -> None:
        self._vigil = watch(self._vigil, sight, now, self._after)
        if deaf := stuck(self._vigil, sight.served, now, self._after):
            self._node.reception.stuck(deaf)
            self._node.wake()

    def _room(self) -> bool:
        """Whether a message that came now would start.

        What waits here for a rate limit, a lock or a suspect to end takes credit and no slot: that is no deafness.
        """
        node, credit = self._node, self._consumer.qos.value
        try:
            if node.fenced or not node.free_slots() or not node.batch_limit:
                return False
            return not credit or len(node.ledger.held()) < credit
        except Fenced:  # it has said goodbye meanwhile
            return False

    def _queues(self) -> list[str]:
        """What is consumed now; a queue that was paused by remote control is not.

        Where the broker has several consumers for each shard and serves one, nobody is deaf who is not served.
        """
        node = self._node
        chosen = list(self._consumer.app.amqp.queues.consume_from)
        return [queue for queue in chosen if not (node.broker.hands_over and node.share.is_shard(queue))]


class LookoutStep(bootsteps.StartStopStep):
    """Begins to look out with every connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    name = "ha-lookout"

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.lookout = None
        self._backlog: Backlog | None = None
        self._timer: Any = None

    def include_if(self, c: Any) -> bool:
        return bool(c.app.ha.config.stuck_after)

    def start(self, c: Any) -> None:
        node = c.node
        if self._backlog is None:
            self._backlog = backlog_of(c.app, node.config.store_timeout)
        c.lookout = Lookout(c, node, self._backlog)
        self._timer = c.timer.call_repeatedly(interval(node.config.stuck_after), c.lookout.look)

    def stop(self, c: Any) -> None:
        timer, self._timer = self._timer, None
        if timer:
            timer.cancel()

    shutdown = stop
