"""No-op tasks a second, requests to Redis and Redis CPU per task: celery_ha beside plain Celery.

Both consume the same number of waiting no-op tasks from a private server with the same settings
(late acks, same prefetch, same pool), in turns; the middle of each run is measured, so that starting
and stopping do not count. ``python -m benchmarks.throughput [--tasks N] [--rounds N]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.machine import machine
from tests.support.server import RedisServer, server_binary
from tests.support.fleet import fleet


@dataclass(frozen=True)
class Figures:
    """One run."""

    rate: float
    reads: float
    cpu: float


def measure(kind: str, server: RedisServer, tasks: int, options: tuple[str, ...], prefetch: int) -> Figures:
    """Let one worker consume ``tasks`` waiting no-ops."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    environment = {"PROBE_BROKER": server.url, "PROBE_PREFETCH": str(prefetch), "PROBE_LEDGER": "/dev/null"}
    if kind == "plain":
        environment["PROBE_PLAIN"] = "1"
    publish(environment, tasks)
    with tempfile.TemporaryDirectory() as folder, fleet(Path(folder), **environment) as workers:
        workers.start(*options, "--without-gossip", "--without-mingle", "-l", "WARNING", ready=False)
        begin = wait_for(client, tasks * 8 // 10)
        end = wait_for(client, tasks // 10)
    done = begin.left - end.left
    return Figures(
        done / (end.at - begin.at),
        (end.reads - begin.reads - (end.looks - begin.looks)) / done,
        (end.cpu - begin.cpu) / done * 1e6,
    )


@dataclass(frozen=True)
class Sample:
    at: float
    left: int
    reads: int
    cpu: float
    looks: int


LOOKS = 0


def look(client: redis.Redis) -> Sample:
    global LOOKS
    LOOKS += 1
    pipe = client.pipeline(transaction=False)
    pipe.llen("celery")
    pipe.info("stats")
    pipe.info("cpu")
    left, stats, cpu = pipe.execute()
    return Sample(
        time.perf_counter(), left, stats["total_reads_processed"],
        cpu["used_cpu_user"] + cpu["used_cpu_sys"], LOOKS,
    )


def wait_for(client: redis.Redis, left: int) -> Sample:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        sample = look(client)
        if sample.left <= left:
            return sample
        time.sleep(0.02)
    raise SystemExit("the worker did not consume its tasks within 300 s")


def publish(environment: dict[str, str], tasks: int) -> None:
    """Put ``tasks`` no-ops into the queue, made once and repeated: consuming is what is measured."""
    import json
    import uuid

    from celery import Celery

    client = redis.Redis.from_url(environment["PROBE_BROKER"])
    app = Celery("publisher", broker=environment["PROBE_BROKER"])
    app.send_task("tests.support.probe.noop", ignore_result=True)
    message = json.loads(client.rpop("celery"))
    for at in range(0, tasks, 1000):
        batch = []
        for _ in range(min(1000, tasks - at)):
            message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid.uuid4())
            message["properties"]["delivery_tag"] = str(uuid.uuid4())
            batch.append(json.dumps(message))
        client.lpush("celery", *batch)


CASES = {
    "prefork -c 2, prefetch 1": (("-c", "2"), 1),
    "prefork -c 2, prefetch 4": (("-c", "2"), 4),
    "threads -c 4, prefetch 1": (("-P", "threads", "-c", "4"), 1),
    "solo, prefetch 1": (("-P", "solo"), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=list(CASES))
    args = parser.parse_args()
    print(machine())
    print(f"{'':26} {'tasks/s':>18} {'ratio':>6} {'requests/task':>15} {'Redis CPU us/task':>19}")
    server = RedisServer(str(server_binary()))
    try:
        for case in args.case or CASES:
            options, prefetch = CASES[case]
            runs: dict[str, list[Figures]] = {"plain": [], "celery_ha": []}
            for _ in range(args.rounds):
                for kind, found in runs.items():
                    found.append(measure(kind, server, args.tasks, options, prefetch))
            show(case, runs["plain"], runs["celery_ha"])
    finally:
        server.stop()


def show(case: str, plain: list[Figures], ours: list[Figures]) -> None:
    def median(runs: list[Figures], name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    ratio = statistics.median(o.rate / p.rate for o, p in zip(ours, plain, strict=True))
    print(
        f"{case:26} {median(plain, 'rate'):8.0f} ->{median(ours, 'rate'):7.0f} {ratio:5.2f}x"
        f" {median(plain, 'reads'):6.2f} ->{median(ours, 'reads'):6.2f}"
        f" {median(plain, 'cpu'):8.1f} ->{median(ours, 'cpu'):8.1f}"
    )


if __name__ == "__main__":
    main()
