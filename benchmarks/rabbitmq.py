"""RabbitMQ: no-op tasks a second beside plain Celery on the same quorum queue, and takeovers after a SIGKILL.

Both kinds of worker consume the same number of waiting no-op tasks from the same queue with the same
settings (late acks, prefetch, pool), in turns; leases and attempts are in a private Redis. Both kinds of producer
publish to it with confirms, which plain Celery has to be told. Then three workers run short keyed tasks
and one is killed, again and again: what it was running, and what waited on its shards, starts elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import kombu

from benchmarks import report
from benchmarks.report import Figure, median, p99, paired
from benchmarks.stage import folder, ha_app, plain_app, private_server
from celery_ha.rabbitmq import NEVER_DROP
from tests.support.fleet import eventually, fleet
from tests.support.rabbit import Rabbit, rabbit_is_here
from tests.support.scene import Scene, first_start_after, scene
from tests.support.server import RedisServer

TASK = "tests.support.probe.noop"
ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": NEVER_DROP}
#: The one queue of the first half, as both kinds declare it.
QUEUE = {"exchange": "celery", "exchange_type": "topic", "routing_key": "celery", "queue_arguments": ARGUMENTS}
CASES = {
    "prefork -c 2, prefetch 1": ("-c", "2"),
    "prefork -c 2, prefetch 4": ("-c", "2"),
    "threads -c 4, prefetch 4": ("-P", "threads", "-c", "4"),
}
#: The part of the tasks that is left when measuring begins, and when it ends.
BEGIN, END = 0.8, 0.1
#: Seconds without which nothing can be told; between two looks; that a task takes when workers are killed.
PATIENCE, LOOK_EVERY, SECONDS = 300.0, 0.02, 0.1
WORKERS, TTL = 3, 4.0


@contextmanager
def private_rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ that nobody else uses."""
    if not rabbit_is_here():
        sys.exit("no rabbitmq-server here; tools/services.sh says what to install")
    server = Rabbit()
    try:
        server.start()
        yield server
    finally:
        server.close()


def rate(kind: str, url: str, server: RedisServer, tasks: int, options: tuple[str, ...], prefetch: int) -> float:
    """Let one worker consume ``tasks`` no-ops; returns how many a second."""
    conf = {"ha_store": server.url, "task_queues": {"celery": QUEUE}}
    app = ha_app(url, **conf)
    with app.connection_for_write(transport_options={"confirm_publish": False}) as connection:
        producer = app.amqp.Producer(connection)
        for _ in range(tasks):
            app.send_task(TASK, producer=producer)
    with kombu.Connection(url) as connection, folder() as logs:
        channel = connection.channel()
        environment = {"PROBE_BROKER": url, "PROBE_PREFETCH": str(prefetch), "PROBE_LEDGER": "/dev/null"}
        environment |= {"PROBE_CONF": json.dumps(conf if kind == "celery_ha" else {"task_queues": conf["task_queues"]})}
        environment |= {"PROBE_PLAIN": "1"} if kind == "plain" else {}

        def wait_for(left: int) -> float:
            deadline = time.monotonic() + PATIENCE
            while channel.queue_declare("celery", passive=True).message_count > left:
                if time.monotonic() > deadline:
                    sys.exit(f"the worker did not consume its tasks within {PATIENCE:g} s")
                time.sleep(LOOK_EVERY)
            return time.perf_counter()

        with fleet(logs, **environment) as workers:
            workers.start(
                *options, "-Q", "celery", "--without-gossip", "--without-mingle", "-l", "WARNING", ready=False
            )
            begin, end = wait_for(int(tasks * BEGIN)), wait_for(int(tasks * END))
    app.close()
    return tasks * (int(BEGIN * 100) - int(END * 100)) / 100 / (end - begin)


def throughput(rabbit: Rabbit, server: RedisServer, args: argparse.Namespace) -> list[Figure]:
    """Measure each case in paired rounds."""
    rows, figures = [], []
    for case, options in CASES.items():
        runs: dict[str, list[float]] = {"plain": [], "celery_ha": []}
        prefetch = int(case.rpartition(" ")[2])
        for number in range(args.rounds):
            for kind in runs if number % 2 == 0 else reversed(runs):
                runs[kind].append(rate(kind, rabbit.url(), server, args.tasks, options, prefetch))
        plain, ours = runs.values()
        figure = Figure(f"tasks/s, RabbitMQ, {case}", paired(ours, plain), 0.95, at_least=True)
        rows.append([case, f"{median(plain):.0f} -> {median(ours):.0f}", f"{figure.value:.2f}x {report.mark(figure)}"])
        figures.append(figure)
    report.table(("plain -> celery_ha", "tasks/s", "ratio"), rows)
    return figures


def published(kind: str, url: str, server: RedisServer, tasks: int) -> float:
    """Publish ``tasks`` no-ops, each confirmed; returns how many a second."""
    queues = {"celery": QUEUE}
    if kind == "plain":
        app = plain_app(url, task_queues=queues, broker_transport_options={"confirm_publish": True})
    else:
        app = ha_app(url, task_queues=queues, ha_store=server.url)
    app.send_task(TASK)  # connects, and declares the queue
    begin = time.perf_counter()
    for _ in range(tasks):
        app.send_task(TASK)
    took = time.perf_counter() - begin
    app.close()
    with kombu.Connection(url) as connection:
        connection.channel().queue_purge("celery")
    return tasks / took


def publishing(rabbit: Rabbit, server: RedisServer, args: argparse.Namespace) -> list[Figure]:
    """Measure producers in paired rounds."""
    runs: dict[str, list[float]] = {"plain": [], "celery_ha": []}
    url = rabbit.url()
    for number in range(args.rounds):
        for kind in runs if number % 2 == 0 else reversed(runs):
            runs[kind].append(published(kind, url, server, args.tasks // 2))
    plain, ours = runs.values()
    figure = Figure("publishes/s, RabbitMQ, confirmed", paired(ours, plain), 0.95, at_least=True)
    row = ["confirmed", f"{median(plain):.0f} -> {median(ours):.0f}", f"{figure.value:.2f}x {report.mark(figure)}"]
    report.table(("plain -> celery_ha", "publishes/s", "ratio"), [row])
    return [figure]


@dataclass(frozen=True)
class Takeover:
    """Seconds after a SIGKILL until a first task started elsewhere."""

    #: Of those that waited on the dead worker's shards or in its memory.
    waiting: float
    #: Of those that it was running.
    running: float


def kill(stage: Scene) -> Takeover:
    """Kill one of three busy workers."""
    stage.top_up(WORKERS)
    time.sleep(TTL)  # the leader has watched everybody, and the next in line have subscribed
    victim = stage.live[0]
    keys = stage.publish("order", stage.keys_on(stage.shards(victim), 60), SECONDS)
    stage.wait_started(keys, 10)
    harm = stage.kill(victim)
    before = [run for run in stage.ledger.runs() if run.key in keys and run.start <= harm.at]
    started = {run.key for run in before}
    running = {run.key for run in before if run.node == victim.name and run.end is None}
    found = [
        eventually(first_start_after(stage.ledger, some, harm.at, elsewhere=victim.name)) - harm.at if some else 0.0
        for some in (set(keys) - started, running)
    ]
    stage.wait_ended(keys)
    if doubled := stage.ledger.doubled(keys, stage.harms):
        sys.exit(f"run twice without an excuse: {doubled}")
    return Takeover(*found)


def takeovers(rabbit: Rabbit, server: RedisServer, args: argparse.Namespace) -> list[Figure]:
    """Kill workers; one task lost, or run twice that had not started, ends the benchmark."""
    conf = {"ha_store": server.url}
    if args.confirm_after:
        conf |= {"ha_confirm_after": args.confirm_after, "ha_look_every": args.confirm_after / 2}
    with (
        folder() as path,
        scene(server, path, ttl=TTL, broker=rabbit.url(), PROBE_CONF=json.dumps(conf)) as stage,
    ):
        found = [kill(stage) for _ in range(args.kills)]
    waiting, running = [one.waiting for one in found], [one.running for one in found if one.running]
    rows = [
        [name, f"{median(times):.2f}", f"{p99(times):.2f}"]
        for name, times in (("waiting on its shards", waiting), ("running", running))
        if times
    ]
    report.table((f"{len(found)} SIGKILLs, 0 lost: seconds until the first start elsewhere", "median", "p99"), rows)
    figures = [Figure("takeover of what waits, RabbitMQ, p99", p99(waiting), 0.5, "s")]
    return [*figures, Figure("takeover of what runs, RabbitMQ, p99", p99(running), 0.5, "s")] if running else figures


def run(args: argparse.Namespace) -> list[Figure]:
    """Both halves."""
    with private_rabbit() as rabbit, private_server() as server:
        figures = [*throughput(rabbit, server, args), *publishing(rabbit, server, args)] if args.rounds else []
        return [*figures, *(takeovers(rabbit, server, args) if args.kills else [])]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=5)
    parser.add_argument("--tasks", type=int, help="waiting tasks in a run; default 5000")
    parser.add_argument("--kills", type=int, help="workers to kill; default 50")
    parser.add_argument("--confirm-after", type=float, help="ha_confirm_after, looking twice as often; default its own")
    args = parser.parse_args(argv)
    args.rounds = (1 if args.quick else 5) if args.rounds is None else args.rounds
    args.tasks = args.tasks or (300 if args.quick else 5_000)
    args.kills = (2 if args.quick else 50) if args.kills is None else args.kills
    return args


if __name__ == "__main__":
    report.alone(parse, run)
