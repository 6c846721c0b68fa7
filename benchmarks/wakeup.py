"""Idle wake-up: from the call of ``apply_async`` to the first line of the task, celery_ha beside plain Celery.

Two idle workers, one of each kind, on two databases of one private server. They get one task at a
time, in turns, with a pause of random length before each, so that a worker is always asleep.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report
from benchmarks.report import Figure, median
from benchmarks.stage import PROBE, database, folder, ha_app, plain_app, private_server
from benchmarks.tail import Tail
from tests.support.fleet import Fleet, eventually, fleet
from tests.support.server import RedisServer

BAR = 1.1
CASES = {"prefork": ("-c", "2"), "threads": ("-P", "threads", "-c", "2"), "solo": ("-P", "solo")}
#: Seconds of rest before a publish, at least and at most.
PAUSE = 0.05, 0.3
#: Wake-ups that do not count: the first ones connect, import and fork.
WARM_UP = 5


class Sleeper:
    """An idle worker, and the app that wakes it.

    Args:
        workers: where it was started.
        publish: publishes a task with this key.
        ledger: what its tasks write to.
    """

    def __init__(self, workers: Fleet, publish: Callable[[str], object], ledger: Path) -> None:
        self._workers = workers
        self._publish = publish
        self._tail = Tail(ledger)
        self._ended: set[str] = set()
        self._started: dict[str, float] = {}
        #: Seconds, of each wake-up.
        self.took: list[float] = []

    def wait_ready(self) -> None:
        for worker in self._workers.workers:
            worker.wait_ready()

    def wake(self, key: str) -> None:
        """Publish, and wait for the end; the ledger is left alone while the worker is busy."""
        began = time.time()
        self._publish(key)
        time.sleep(PAUSE[0])
        eventually(lambda: self._over(key), every=0.01, why=f"task {key} is over")
        self.took.append(self._started[key] - began)

    def _over(self, key: str) -> bool:
        for entry in self._tail.new():
            if entry.event == "start":
                self._started[entry.key] = entry.at
            else:
                self._ended.add(entry.key)
        return key in self._ended


def sleeper(stack: ExitStack, server: RedisServer, logs: Path, kind: str, options: tuple[str, ...]) -> Sleeper:
    """Start a worker of one kind, which ends with the stack."""
    plain = kind == "plain"
    broker, ledger = database(server, 0 if plain else 1), logs / f"{kind}.ledger"
    environment = {"PROBE_BROKER": broker, "PROBE_LEDGER": str(ledger), "PROBE_PREFETCH": "1"}
    if plain:
        environment["PROBE_PLAIN"] = "1"
    workers = stack.enter_context(fleet(logs, **environment))
    app = (plain_app if plain else ha_app)(broker)
    stack.callback(app.close)
    options = (*options, "--without-gossip", "--without-mingle")
    workers.start(*options, name=f"{kind}@bench", ready=False)
    return Sleeper(workers, lambda key: app.send_task(f"{PROBE}.work", (key, 0)), ledger)


def measure(case: str, samples: int) -> tuple[list[float], list[float]]:
    """Wake both by turns."""
    chance = random.Random(samples)
    with ExitStack() as stack:
        server, logs = stack.enter_context(private_server()), stack.enter_context(folder())
        pair = [sleeper(stack, server, logs, kind, CASES[case]) for kind in ("plain", "celery_ha")]
        for each in pair:
            each.wait_ready()
        for number in range(WARM_UP + samples):
            for each in pair if number % 2 == 0 else reversed(pair):
                time.sleep(chance.uniform(*PAUSE))
                each.wake(f"k{number}")
    plain, ours = (each.took[WARM_UP:] for each in pair)
    return plain, ours


def run(args: argparse.Namespace) -> list[Figure]:
    """Measure each kind of pool."""
    rows, figures = [], []
    for case in args.pool:
        plain, ours = measure(case, args.rounds)
        figures.append(Figure(f"idle wake-up, {case}", median(ours) / median(plain), BAR))
        times = [f"{of(plain) * 1e3:.2f} -> {of(ours) * 1e3:.2f}" for of in (median, report.p99)]
        rows.append((case, str(len(ours)), *times, f"{figures[-1].value:.2f}x", report.mark(figures[-1])))
    report.table(("plain -> celery_ha", "samples", "median ms", "p99 ms", "ratio of medians", ""), rows)
    return figures


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=200)
    parser.add_argument("--pool", action="append", choices=list(CASES))
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (5 if args.quick else 200)
    args.pool = args.pool or (["prefork"] if args.quick else list(CASES))
    return args


if __name__ == "__main__":
    report.alone(parse, run)
