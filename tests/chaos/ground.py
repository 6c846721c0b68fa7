"""The servers of a storm: what is struck, what is left on them, and what was given up there."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Protocol

from celery_ha.brokers.dead import DeadLetter
from celery_ha.inspect.desk import Desk
from celery_ha.keys import shard_names
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene, wait_exit
from tests.support.server import RedisServer

#: Plain queues.
QUEUES = ("celery", "reports")


class Server(Protocol):
    """One that can be stopped in its tracks, and killed; it remembers what it has confirmed."""

    def send(self, signum: int) -> None:
        """Send it a signal."""

    def start(self) -> None:
        """Start it, again after :meth:`stop`."""

    def stop(self) -> None:
        """End it."""


@dataclass
class Ground:
    """Broker and store, used by nobody else.

    Args:
        store: a Redis that forgets nothing it has confirmed; without a RabbitMQ the broker too.
        results: Celery's result backend. It is spared: Celery itself loses a chord whose backend fails while a part
            is counted.
        rabbit: the broker.
    """

    store: RedisServer
    results: RedisServer
    rabbit: Rabbit | None = None

    @property
    def servers(self) -> list[Server]:
        """Those that are struck."""
        return [self.store, *([self.rabbit] if self.rabbit else [])]

    def left(self, made: Scene) -> int:
        """Messages that wait or are in somebody's hands, as far as can be told from outside."""
        if self.rabbit is None:
            return made.waiting(*QUEUES) + made.in_flight()
        return sum(self._ready(made).values()) + len(self.in_flight(made))

    def in_flight(self, made: Scene) -> list[str]:
        """Claims that nobody ends, each with the beginning of its record."""
        kind = "flight" if self.rabbit is None else "attempts"
        flights = [(key, made.redis.hgetall(key)) for key in made.redis.scan_iter(f"{made.prefix}_ha:{kind}:*")]
        open_ = {lease.decode() for lease in made.hash("leases")}
        return [
            f"{claim.decode()} ({'open' if key.decode().rpartition(':')[2] in open_ else 'closed'}): {record[:400]!r}"
            for key, flight in flights
            for claim, record in flight.items()
        ]

    def waiting(self, made: Scene) -> list[str]:
        """What is left in queues; what is left on a shard of a Redis is missed as a task."""
        if self.rabbit is None:
            return [f"{made.waiting(name)} in {name}" for name in QUEUES if made.waiting(name)]
        return [f"{count} in {name}" for name, count in self._ready(made).items() if count]

    def unanswered(self, made: Scene) -> list[str]:
        """When all workers have gone, RabbitMQ has what nobody has answered for; a Redis shows it at any time."""
        if self.rabbit is None:
            return []
        workers = made.live
        for worker in workers:
            worker.send(signal.SIGTERM)
        wait_exit(workers)
        return self.waiting(made)

    def letters(self, made: Scene) -> list[DeadLetter]:
        """The dead letters."""
        desk = Desk(made.probe.app)
        try:
            return list(desk.dead)
        finally:
            desk.close()

    def settle(self, made: Scene) -> None:
        """Until nothing is in anybody's hands."""
        made.wait_idle()
        if self.rabbit is not None:
            eventually(lambda: not self.left(made), why="nothing in flight")

    def _ready(self, made: Scene) -> dict[str, int]:
        names = [*QUEUES, "orders", *shard_names("orders", made.probe.app.ha.config.queues["orders"])]
        desk = Desk(made.probe.app)
        try:
            return dict(desk.census.waiting(names))
        finally:
            desk.close()


def outage(server: Server, seconds: float) -> tuple[float, float]:
    """Kill a server, and start it again after so long; from when to when it was away, wall clock."""
    began = time.time()
    server.send(signal.SIGKILL)
    server.stop()
    time.sleep(seconds)
    server.start()
    return began, time.time()
