"""No-op tasks a second, requests to Redis and Redis CPU per task: celery_ha beside plain Celery.

Both consume the same number of waiting no-op tasks from a private server with the same settings
(late acks, same prefetch, same pool), in turns. The worker is up and has said what its settings are
before it gets its tasks, all at once; the first fifth of them is for warming up, the last tenth for
running dry, what lies between is measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery

from benchmarks import report
from benchmarks.report import Figure, median, paired
from benchmarks.stage import PROBE, Copies, folder, plain_app, private_server
from tests.support.fleet import fleet
from tests.support.server import RedisServer

TASK, QUEUE = f"{PROBE}.noop", "celery"
CASES = {
    "prefork -c 2, prefetch 1": (("-c", "2"), 1),
    "prefork -c 2, prefetch 4": (("-c", "2"), 4),
    "threads -c 4, prefetch 1": (("-P", "threads", "-c", "4"), 1),
    "solo, prefetch 1": (("-P", "solo"), 1),
}
KINDS = ("plain", "celery_ha")
#: The part of the tasks that is left when measuring begins, and when it ends.
BEGIN, END = 0.8, 0.1
#: Seconds without which nothing can be told.
PATIENCE = 300.0
#: Seconds between two looks at how much is left.
LOOK_EVERY = 0.02


@dataclass(frozen=True)
class Terms:
    """What a worker says about itself; must be the same on both sides."""

    late_acks: bool
    #: Messages it may hold.
    prefetch: int


@dataclass(frozen=True)
class Figures:
    """One run."""

    terms: Terms
    rate: float
    requests: float
    #: Microseconds a task.
    cpu: float


@dataclass(frozen=True)
class Sample:
    """One look at the server."""

    at: float
    left: int
    requests: int
    #: Seconds.
    cpu: float


class Meter:
    """Looks at the server, and leaves its own requests out of the account."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._own = 0

    def wait_for(self, left: int) -> Sample:
        """Wait until no more than this is left in the queue."""
        deadline = time.monotonic() + PATIENCE
        while self._left() > left:
            if time.monotonic() > deadline:
                sys.exit(f"the worker did not consume its tasks within {PATIENCE:g} s")
            time.sleep(LOOK_EVERY)
        return self._sample()

    def _left(self) -> int:
        self._own += 1
        return int(self._client.llen(QUEUE))

    def _sample(self) -> Sample:
        self._own += 1
        pipe = self._client.pipeline(transaction=False)
        pipe.llen(QUEUE)
        pipe.info("stats")
        pipe.info("cpu")
        left, stats, cpu = pipe.execute()
        used = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        return Sample(time.perf_counter(), left, stats["total_reads_processed"] - self._own, used)


def measure(kind: str, server: RedisServer, tasks: int, options: tuple[str, ...], prefetch: int) -> Figures:
    """Let one worker consume ``tasks`` no-ops."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    app = plain_app(server.url)
    Copies(client, app, TASK, QUEUE).push(QUEUE, ((),) * tasks, to="staged")
    environment = {"PROBE_BROKER": server.url, "PROBE_PREFETCH": str(prefetch), "PROBE_LEDGER": "/dev/null"}
    if kind == "plain":
        environment["PROBE_PLAIN"] = "1"
    with folder() as logs, fleet(logs, **environment) as workers:
        workers.start(*options, "--without-gossip", "--without-mingle", "-l", "WARNING", ready=False)
        terms = terms_of(app)
        client.rename("staged", QUEUE)
        meter = Meter(client)
        begin, end = meter.wait_for(int(tasks * BEGIN)), meter.wait_for(int(tasks * END))
    app.close()
    client.close()
    done = begin.left - end.left
    return Figures(
        terms,
        done / (end.at - begin.at),
        (end.requests - begin.requests) / done,
        (end.cpu - begin.cpu) / done * 1e6,
    )


def terms_of(app: Celery) -> Terms:
    """Ask the one worker, as soon as it answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        inspect = app.control.inspect(timeout=5.0, limit=1)
        stats, tasks = _answer(inspect.stats()), _answer(inspect.registered("acks_late"))
        if stats and tasks:
            late = any(task.startswith(TASK) and "acks_late=True" in task for task in tasks)
            return Terms(late, int(stats["prefetch_count"]))
        time.sleep(0.1)
    sys.exit(f"the worker did not answer within {PATIENCE:g} s")


def _answer(replies: Any) -> Any:
    return next(iter((replies or {}).values()), None)


def same_terms(case: str, runs: Sequence[Figures]) -> None:
    """Refuse to compare what is not alike."""
    terms = {run.terms for run in runs}
    if len(terms) != 1 or not all(found.late_acks for found in terms):
        sys.exit(f"{case}: the workers did not run on the same terms, late acks among them: {terms}")


def run(args: argparse.Namespace) -> list[Figure]:
    """Measure each case in paired rounds."""
    rows, figures = [], []
    with private_server() as server:
        for case in args.case or CASES:
            plain, ours = measure_case(server, case, args)
            row, found = result(case, plain, ours)
            rows.append(row)
            figures += found
    head = ("plain -> celery_ha", "tasks/s", "ratio", "requests/task", "ratio", "Redis CPU us/task", "ratio")
    report.table(head, rows)
    return figures


def measure_case(server: RedisServer, case: str, args: argparse.Namespace) -> tuple[list[Figures], list[Figures]]:
    options, prefetch = CASES[case]
    runs: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    for number in range(args.rounds):
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            runs[kind].append(measure(kind, server, args.tasks, options, prefetch))
    plain, ours = runs.values()
    same_terms(case, [*plain, *ours])
    return plain, ours


def result(case: str, plain: Sequence[Figures], ours: Sequence[Figures]) -> tuple[list[str], list[Figure]]:
    """A row of the table, and the figures in it that have a bar."""

    def ratio(name: str) -> float:
        return paired((getattr(run, name) for run in ours), (getattr(run, name) for run in plain))

    figures = [
        Figure(f"tasks/s, {case}", ratio("rate"), 1.8, at_least=True),
        Figure(f"requests/task, {case}", ratio("requests"), 0.5),
        Figure(f"Redis CPU/task, {case}", ratio("cpu"), 1.0),
    ]
    row = [case]
    for figure, name, form in zip(figures, ("rate", "requests", "cpu"), ("{:.0f}", "{:.2f}", "{:.0f}"), strict=True):
        before, after = (form.format(median(getattr(run, name) for run in runs)) for runs in (plain, ours))
        row += [f"{before} -> {after}", f"{figure.value:.2f}x {report.mark(figure)}"]
    return row, figures


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=5)
    parser.add_argument("--tasks", type=int, help="waiting tasks in a run; default 10000")
    parser.add_argument("--case", action="append", choices=list(CASES))
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.tasks = args.tasks or (300 if args.quick else 10_000)
    args.case = args.case or (["threads -c 4, prefetch 1"] if args.quick else None)
    return args


if __name__ == "__main__":
    report.alone(parse, run)
