"""Locks: what contention costs those who have no part in it, hand-over and plain use beside redis-py's ``Lock``.

- contention: the time that free tasks take on 2 workers of 2 slots, alone and beside as many tasks that contend
  for one lock;
- hand-over: from a release to the one who waits for it, of tasks (2 workers of 2 slots) and of callers (threads);
- uncontended: acquire and release in one thread, in turns;
- held: commands the server gets a second while a process holds 1 lock and while it holds 10,000.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
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
#: Seconds of a free task, and of one that holds the lock beside it.
FREE, HELD = 0.05, 0.0
#: Seconds for which a lock is held while one waits for it, at least and at most: redis-py asks every 0.1.
HOLD = 0.15, 0.35
#: Seconds for which commands are counted, and the lease TTL meanwhile.
COUNTED, TTL = 5.0, 1.0


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
    """Two tasks a lock: seconds from the first one's end to the second one's start."""
    dice = random.Random(count)

    def publish(app: Celery) -> int:
        for number in range(count):
            for which in "ab":
                app.send_task(f"{PROBE}.{task}", (f"{which}{number}", f"lock{number}", dice.uniform(*HOLD)))
        return 2 * count

    with stage(publish) as ledger:
        pairs = defaultdict(list)
        for run in ledger.runs():
            pairs[run.key[1:]].append(run)
        ordered = [sorted(pair, key=lambda run: run.start) for pair in pairs.values()]
        return [second.start - (first.end or 0.0) for first, second in ordered]


def gaps_of_callers(take: Callable[[], Any], count: int) -> list[float]:
    """A thread that waits for what another holds: seconds from the release to the grant."""
    dice, gaps = random.Random(count), []

    def wait() -> None:
        with take():
            gaps.append(time.monotonic())

    for _ in range(count):
        with take():
            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(dice.uniform(*HOLD))
            released = time.monotonic()
        thread.join()
        gaps[-1] -= released
    return gaps


def hand_over(server: RedisServer, count: int) -> tuple[list[Figure], list[tuple[str, ...]]]:
    app, client = ha_app(server.url), redis.Redis.from_url(server.url)
    pairs = {
        "tasks": (gaps_of_tasks("contend", count), gaps_of_tasks("polled", count)),
        "callers": (
            gaps_of_callers(lambda: app.ha.lock("x", timeout=60), count),  # type: ignore[attr-defined]
            gaps_of_callers(lambda: client.lock("y", timeout=60), count),
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
    attempt = app.ha.tenant.attempt(0.0)  # type: ignore[attr-defined]

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
    app, client = ha_app(server.url, ha_lease_ttl=TTL), redis.Redis.from_url(server.url)
    attempt = app.ha.tenant.attempt(0.0)  # type: ignore[attr-defined]

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
        parts.append(hand_over(server, args.tasks // 20))
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
