"""Publishes the mix at a modest rate, in a thread of its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import AMQPError
from celery import chord
from kombu.exceptions import OperationalError
from redis import RedisError

from tests.chaos.mix import Order, Published, order
from tests.chaos.plan import Plan
from tests.support.scene import Scene

#: Seconds to wait for whatever should happen; far above what is normal.
HANG = 120.0
#: Seconds to wait for one worker to say that it knows of a revocation.
HEARD = 2.0
#: How a server that is not there shows itself to a producer that has tried for long enough.
AWAY = (OperationalError, RedisError, AMQPError, OSError)


class Publisher:
    """Publishes until it is told to stop; :attr:`done` says what was accepted."""

    def __init__(self, made: Scene, plan: Plan) -> None:
        self.done = Published()
        self._probe, self._plan = made.probe, plan
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._publish, daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(HANG)
        assert not self._thread.is_alive(), "the publisher hangs"
        if self._failure is not None:
            raise self._failure

    def _publish(self) -> None:
        try:
            for number in itertools.count():
                self._send(order(self._plan.seed, number))
                if self._over.wait(1 / self._plan.rate):
                    return
        except BaseException as exc:  # noqa: BLE001 - told by the thread that waits for this one
            self._failure = exc

    def _send(self, what: Order) -> None:
        began = time.time()
        try:
            result = self._apply(what)
        except AWAY:
            self.done.doubtful.add(what.key)
            return
        self.done.orders.append(what)
        self.done.ids[what.key] = result.id
        self.done.due[what.key] = (began if what.kind == "eta" else time.time()) + what.delay
        if what.kind == "revoked":
            self._revoke(what, result.id)

    def _apply(self, what: Order) -> Any:
        probe, key, seconds = self._probe, what.key, what.seconds
        if what.kind == "chord":
            return chord([probe.order.s(part, seconds) for part in what.parts])(probe.finale.s(what.last))
        timed = {"countdown": what.delay}
        task, args, options = {
            "charge": (probe.charge, (key, what.account, seconds), {}),
            "held": (probe.charge, (key, what.account, seconds), {}),
            "report": (probe.work, (key, seconds), {"queue": "reports", "priority": what.priority}),
            "eta": (probe.order, (key, seconds), timed),
            "revoked": (probe.order, (key, seconds), timed),
            "expiring": (probe.work, (key, seconds), {"expires": what.delay}),
            "retried": (probe.retried, (key,), {}),
            "poison": (probe.fatal, (key, what.way), {}),
            "order": (probe.order, (key, seconds), {}),
        }.get(what.kind, (probe.work, (key, seconds), {}))
        return task.apply_async(args, **options)

    def _revoke(self, what: Order, task: str) -> None:
        try:
            heard = self._probe.app.control.revoke(task, reply=True, limit=1, timeout=HEARD)
        except AWAY:
            return
        kept = any("ok" in reply for told in heard or () for reply in told.values())
        if kept and time.time() < self.done.due[what.key] - HEARD:
            self.done.revoked.add(what.key)
