"""Locks: what contention costs those who have no part in it, hand-over and plain use beside redis-py's ``Lock``.

- contention: the time that free tasks take on 2 workers of 2 slots, alone and beside as many tasks that contend
  for one lock;
- hand-over: from a release to the next holder, of tasks (2 workers of 2 slots) and of callers (threads);
- uncontended: acquire and release in one thread, in turns;
- held: commands the server gets a second while a process holds 1 lock and while it holds 10,000.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any

import redis
from celery import Celery

from benchmarks import report
from benchmarks.report import Figure, median, paired
from benchmarks.stage import PROBE, folder, ha_app, private_server
from celery_ha.locks.lock import Lock
from tests.support.fleet import eventually, fleet
from tests.support.ledger import Ledger
from tests.support.server import RedisServer

WORKERS = "-c", "2", "-Q", "celery", "--without-gossip", "--without-mingle"
#: Seconds of a free task, of one that holds the lock, and between two tries of redis-py's lock.
FREE, HELD = 0.05, 0.0
#: Seconds for which commands are counted.
COUNTED = 4.0


@contextmanager
def stage(tasks: Callable[[Celery], int], **environment: str) -> Iterator[Ledger]:
    """Two workers that start with these tasks waiting; the ledger, once every task is done."""
    with private_server() as server, folder() as logs:
        everything = {
            "PROBE_BROKER": server.url,
            "PROBE_LEDGER": str(logs / "ledger"),
            "PROBE_PREFETCH": "1",
            **environment,
        }
        app = ha_app(server.url)
        count = tasks(app)
        app.close()
        ledger = Ledger(logs / "ledger")
        with fleet(logs, **everything) as workers:
            workers.start_many(2, *WORKERS)
            eventually(
                lambda: sum(line[0] == "end" for line in ledger.lines()) >= count,
                within=600,
                every=0.2,
                why=f"{count} tasks are done",
            )
            yield ledger


def free_for(count: int, contenders: int) -> float:
    """Seconds from the first start to the last end of the free tasks."""

    def publish(app: Celery) -> int:
        for number in range(max(count, contenders)):
            if number < contenders:
                app.send_task(f"{PROBE}.contend", (f"c{number}", "one", HELD))
            if number < count:
                app.send_task(f"{PROBE}.work", (f"f{number}", FREE))
        return count + contenders

    with stage(publish) as ledger:
        runs = [run for run in ledger.runs() if run.key.startswith("f")]
        return max(run.end or 0.0 for run in runs) - min(run.start for run in runs)


def contention(rounds: int, count: int) -> tuple[list[Figure], list[tuple[str, ...]]]:
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(free_for(count, 0))
        beside.append(free_for(count, count))
    figure = Figure("free tasks beside as many contenders", paired(beside, alone), 1.1)
    return [figure], [
        (f"{count} free tasks", f"{median(alone):.2f} s alone", f"{median(beside):.2f} s beside", *_mark(figure))
    ]


def gaps_of_tasks(task: str, count: int) -> list[float]:
    """Seconds from each holder's end to the next one's start."""

    def publish(app: Celery) -> int:
        for number in range(count):
            app.send_task(f"{PROBE}.{task}", (f"k{number}", "one", 0.01))
        return count

    with stage(publish) as ledger:
        runs = sorted(ledger.runs(), key=lambda run: run.start)
        return [after.start - (before.end or 0.0) for before, after in pairwise(runs)][count // 10 :]


def gaps_of_callers(take: Callable[[], Any], count: int) -> list[float]:
    """Two threads that hold a lock by turns: seconds from each release to the other's grant."""
    released, gaps = [0.0], []

    def hold() -> None:
        for _ in range(count):
            with take():
                got = time.monotonic()
                if released[0]:
                    gaps.append(got - released[0])
                time.sleep(0.01)
                released[0] = time.monotonic()
            time.sleep(0.001)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return gaps


def hand_over(server: RedisServer, count: int) -> tuple[list[Figure], list[tuple[str, ...]]]:
    app, client = ha_app(server.url), redis.Redis.from_url(server.url)
    pairs = {
        "tasks": (gaps_of_tasks("contend", count), gaps_of_tasks("polled", count)),
        "callers": (
            gaps_of_callers(lambda: app.ha.lock("x", timeout=60), count // 2),  # type: ignore[attr-defined]
            gaps_of_callers(lambda: client.lock("y", timeout=60), count // 2),
        ),
    }
    app.ha.tenant.close()  # type: ignore[attr-defined]
    figures, rows = [], []
    for what, (ours, its) in pairs.items():
        figure = Figure(f"hand-over, {what}: redis-py's time over ours", median(its) / median(ours), 10, at_least=True)
        figures.append(figure)
        rows.append(
            (
                f"hand-over, {what}",
                f"{median(its) * 1e3:.2f} ms redis-py",
                f"{median(ours) * 1e3:.2f} ms",
                *_mark(figure),
            )
        )
    return figures, rows


def uncontended(server: RedisServer, rounds: int, count: int) -> tuple[list[Figure], list[tuple[str, ...]]]:
    app, client = ha_app(server.url), redis.Redis.from_url(server.url)
    attempt = app.ha.tenant.attempt()  # type: ignore[attr-defined]

    def ours(number: int) -> None:
        lock = Lock(attempt.locks, f"o{number}", attempt.holder, inherit=0.0)
        lock.acquire()
        lock.release()

    def its(number: int) -> None:
        lock = client.lock(f"r{number}", timeout=10)
        lock.acquire()
        lock.release()

    def timed(use: Callable[[int], None]) -> float:
        began = time.perf_counter()
        for number in range(count):
            use(number % 100)
        return (time.perf_counter() - began) / count

    for use in (ours, its):
        timed(use)
    pairs = [(timed(ours), timed(its)) for _ in range(rounds * 3)]
    figure = Figure("uncontended acquire and release", paired(*zip(*pairs, strict=True)), 1.0)
    app.ha.tenant.close()  # type: ignore[attr-defined]
    mine, other = (median(side) * 1e6 for side in zip(*pairs, strict=True))
    return [figure], [("uncontended", f"{other:.0f} us redis-py", f"{mine:.0f} us", *_mark(figure))]


def held(server: RedisServer, many: int) -> tuple[list[Figure], list[tuple[str, ...]]]:
    app, client = ha_app(server.url), redis.Redis.from_url(server.url)
    attempt = app.ha.tenant.attempt()  # type: ignore[attr-defined]

    def commands() -> float:
        before = client.info("stats")["total_commands_processed"]  # type: ignore[index]
        time.sleep(COUNTED)
        return (client.info("stats")["total_commands_processed"] - before) / COUNTED  # type: ignore[index]

    rates = []
    for upto in (1, many):
        for number in range(upto):
            Lock(attempt.locks, f"h{number}", attempt.holder, inherit=0.0).acquire()
        rates.append(commands())
    app.ha.tenant.close()  # type: ignore[attr-defined]
    one, all_ = rates
    figure = Figure(f"commands a second with {many} held locks", all_ / one, 1.1)
    return [figure], [(f"{many} held", f"{one:.1f}/s with 1", f"{all_:.1f}/s", *_mark(figure))]


def _mark(figure: Figure) -> tuple[str, str]:
    return f"{figure.value:.2f}x", report.mark(figure)


def run(args: argparse.Namespace) -> list[Figure]:
    """Measure all four."""
    parts = [contention(args.rounds, args.tasks)]
    with private_server() as server:
        parts.append(hand_over(server, args.tasks // 5))
        parts.append(uncontended(server, args.rounds, args.tasks))
        parts.append(held(server, args.tasks * 10))
    report.table(("locks", "", "", "ratio", ""), chain.from_iterable(rows for _, rows in parts))
    return [figure for figures, _ in parts for figure in figures]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=3)
    parser.add_argument("--tasks", type=int, help="free tasks, and contenders; default 1000")
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.tasks = args.tasks or (50 if args.quick else 1000)
    return args


if __name__ == "__main__":
    report.alone(parse, run)
