"""What a publish costs: celery_ha's app beside a plain one, in one process, on one server.

Both publish the same no-op task, in short blocks by turns, so that whatever else the machine does
hits both. Time is what a caller waits for; the processor time of the caller and of the server, and
the requests, say where it goes. Sharded: ``ha_key`` beside a plain app whose route hashes by hand.
"""

from __future__ import annotations

import argparse
import gc
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import redis
from celery import Celery

from benchmarks import report
from benchmarks.report import Figure, median, paired
from benchmarks.stage import database, ha_app, plain_app, private_server
from tests.support.server import RedisServer

BAR = 1.05
SHARDS = 64
#: Publishes in a block.
BLOCK = 100


@dataclass(frozen=True)
class Cost:
    """Of one publish; microseconds, and a number of requests."""

    time: float
    caller: float
    server: float
    requests: float


class Publisher:
    """One app's side.

    Args:
        client: of the app's database.
        publish: publishes one task, given a number.
    """

    def __init__(self, client: redis.Redis, publish: Callable[[int], object]) -> None:
        self._client = client
        self._publish = publish
        self._published = 0
        self.start()

    def start(self) -> None:
        """Forget what was measured and what was published."""
        self._client.flushdb()
        self._spent = [0.0, 0.0, 0.0, 0.0]
        self._counted = 0

    def block(self, size: int) -> None:
        """Publish some."""
        publish, first = self._publish, self._published
        before = self._account()
        began, used = time.perf_counter(), time.process_time()
        for number in range(first, first + size):
            publish(number)
        spent, cpu = time.perf_counter() - began, time.process_time() - used
        server, requests = (after - then for after, then in zip(self._account(), before, strict=True))
        for at, amount in enumerate((spent * 1e6, cpu * 1e6, server * 1e6, requests - 1)):
            self._spent[at] += amount
        self._published += size
        self._counted += size

    @property
    def cost(self) -> Cost:
        """Since the start."""
        return Cost(*(amount / self._counted for amount in self._spent))

    def _account(self) -> tuple[float, float]:
        pipe = self._client.pipeline(transaction=False)
        pipe.info("stats")
        pipe.info("cpu")
        stats, cpu = pipe.execute()
        return cpu["used_cpu_user"] + cpu["used_cpu_sys"], stats["total_reads_processed"]


Pair = tuple[Publisher, Publisher]


def simple(server: RedisServer) -> Pair:
    """To an ordinary queue."""
    plain, ours = plain_app(database(server, 0)), ha_app(database(server, 1))
    return _publisher(plain), _publisher(ours)


def sharded(server: RedisServer) -> Pair:
    """To the shard of a key; by hand where there is no celery_ha."""
    plain = plain_app(database(server, 0), task_routes=(route_by_hand,))
    ours = ha_app(database(server, 1), ha_queues={"orders": SHARDS})
    return _publisher(plain, queue=None), _publisher(ours, queue="orders", ha_key="order.{number}")


def route_by_hand(_name: str, args: Sequence[Any], *_args: object, **_kwargs: object) -> dict[str, str]:
    """What one writes without celery_ha; Celery gives everything by position but the task."""
    return {"queue": f"orders.{zlib.crc32(f'order.{args[0]}'.encode()) % SHARDS}"}


def _publisher(app: Celery, **options: object) -> Publisher:
    noop = app.task(_noop, name="benchmarks.noop", **options)
    client = redis.Redis.from_url(app.conf.broker_url or app.conf.broker_write_url)
    return Publisher(client, lambda number: noop.apply_async((number,)))


def _noop(number: int) -> None:
    """Never run here."""


CASES: dict[str, Callable[[RedisServer], Pair]] = {"one queue": simple, f"{SHARDS} shards by key": sharded}


def run(args: argparse.Namespace) -> list[Figure]:
    """Measure both cases in rounds of alternating blocks."""
    rows, figures = [], []
    with private_server() as server:
        for case, make in CASES.items():
            plain, ours = measure(make(server), args.rounds, args.publishes)
            figures.append(Figure(f"publish, {case}", ratio("time", plain, ours), BAR))
            rows.append([case, *cells(plain, ours), report.mark(figures[-1])])
    report.table(("plain -> celery_ha", "us", "", "caller CPU us", "", "Redis CPU us", "", "requests", "", ""), rows)
    return figures


def measure(pair: Pair, rounds: int, publishes: int) -> tuple[list[Cost], list[Cost]]:
    """Costs of each side, round by round; the first, for warming up, is left out."""
    plain: list[Cost] = []
    ours: list[Cost] = []
    for _ in range(rounds + 1):
        one_round(pair, publishes)
        for found, publisher in zip((plain, ours), pair, strict=True):
            found.append(publisher.cost)
    return plain[1:], ours[1:]


def one_round(pair: Pair, publishes: int) -> None:
    """A B, B A, A B, ... until both have published so many."""
    for publisher in pair:
        publisher.start()
    gc.collect()
    for number in range(max(1, publishes // BLOCK)):
        for publisher in pair if number % 2 == 0 else reversed(pair):
            publisher.block(min(BLOCK, publishes))


def ratio(name: str, plain: Sequence[Cost], ours: Sequence[Cost]) -> float:
    return paired((getattr(cost, name) for cost in ours), (getattr(cost, name) for cost in plain))


def cells(plain: Sequence[Cost], ours: Sequence[Cost]) -> list[str]:
    """Each cost on both sides, and their ratio."""
    row = []
    for name in (field.name for field in fields(Cost)):
        before, after = (median(getattr(cost, name) for cost in costs) for costs in (plain, ours))
        form = "{:.2f}" if name == "requests" else "{:.0f}"
        row += [f"{form.format(before)} -> {form.format(after)}", f"{ratio(name, plain, ours):.2f}x"]
    return row


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=9)
    parser.add_argument("--publishes", type=int, help="on each side in a round; default 5000")
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (1 if args.quick else 9)
    args.publishes = args.publishes or (200 if args.quick else 5_000)
    return args


if __name__ == "__main__":
    report.alone(parse, run)
