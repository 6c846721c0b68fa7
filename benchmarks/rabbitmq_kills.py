"""SIGKILL after SIGKILL on RabbitMQ: what is lost, what ran twice without an excuse, which locks overlapped.

Workers on a private RabbitMQ, with leases and locks in a private ZooKeeper or Redis, run a stream of sharded,
plain and locked tasks. One main process after the other is killed and replaced, some of them frozen for
longer than their TTL instead. Anything lost, doubled or overlapping ends it with exit code 1:

    python -m benchmarks.rabbitmq_kills --kills 50 --store zookeeper
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from benchmarks import report
from benchmarks.rabbitmq import private_rabbit
from benchmarks.report import Figure, median, p99
from benchmarks.stage import folder, private_server
from celery_ha.store.base import Store
from celery_ha.store.choose import store_from_url
from celery_ha.worker.shards import owned_shards
from celery_ha.worker.standby import AFTER
from tests.support.fleet import Worker, eventually
from tests.support.ledger import Harm
from tests.support.scene import Scene, scene
from tests.support.zookeeper import ZooKeeper, zookeeper_is_here

WORKERS, TTL = 3, 3.0
#: Seconds a task takes; between two of them; that a worker works before it is struck, at least and at most.
SECONDS, EVERY, PAUSE = 0.1, 0.03, (0.3, 1.5)
#: The part of the blows that freeze; of those that kill when the next in line have subscribed, and the time for that.
FROZEN, RESTED, REST = 0.1, 0.5, AFTER + 1.0
ACCOUNTS = 5
#: Tasks that wait on a worker's shards when it is killed, and more than it has slots for.
WAITING = 20


@contextmanager
def private_zookeeper() -> Iterator[ZooKeeper]:
    """A ZooKeeper that nobody else uses."""
    if not zookeeper_is_here():
        sys.exit("no ZooKeeper here; tools/services.sh says what to install")
    server = ZooKeeper()
    try:
        server.start()
        yield server
    finally:
        server.close()


def gather(stage: Scene, store: Store) -> None:
    """As many live workers as there should be, registered, with a leader among them."""
    stage.start(WORKERS - len(stage.live))

    def gathered() -> bool:
        look = store.court.look()
        names = {node.name for node in look.nodes.values() if node.queues}
        leads = look.leader is not None and look.leader.lease in look.nodes
        return leads and not look.fenced and names == {worker.name for worker in stage.live}

    eventually(gathered, every=0.1, why="registered, and nobody waits for recovery")


def strike(stage: Scene, store: Store, chance: random.Random) -> tuple[Harm, list[str]]:
    """Kill or freeze one of the workers; a frozen one goes on when it is given up.

    Returns:
        What was done; what waited for a worker that was killed when the next in line had subscribed.
    """
    time.sleep(chance.uniform(*PAUSE))
    victim = chance.choice(stage.live)
    if chance.random() > FROZEN:
        if chance.random() > RESTED:
            return stage.kill(victim), []
        time.sleep(REST)
        waiting = pile_up(stage, store, victim)
        return stage.kill(victim), waiting
    before = set(store.court.look().nodes)
    harm = stage.kill(victim, signal.SIGSTOP)
    eventually(lambda: before - set(store.court.look().nodes), every=0.1, why="given up")
    thaw(victim)
    return harm, []


def thaw(worker: Worker) -> None:
    """Let a worker go on."""
    worker.send(signal.SIGCONT)


def takeovers(stage: Scene, harms: Sequence[Harm]) -> list[float]:
    """Seconds from each blow to the first new start of a task that it cut off."""
    found: dict[Harm, float] = {}
    for runs in stage.ledger.by_key().values():
        for one, again in itertools.pairwise(runs):
            harm = one.harmed_by(harms) if one.end is None else None
            if harm is not None and again.start > harm.at:
                found[harm] = min(found.get(harm, again.start - harm.at), again.start - harm.at)
    return list(found.values())


def pile_up(stage: Scene, store: Store, victim: Worker) -> list[str]:
    """More tasks than it can start, on the shards of one worker."""
    look = store.court.look()
    shards = owned_shards(victim.name, stage.probe.app.ha.config.queues, look.nodes.values(), look.rings)
    return stage.publish("order", stage.keys_on(shards, WAITING), SECONDS)


def waits(stage: Scene, piles: Sequence[tuple[Harm, Collection[str]]]) -> list[float]:
    """Seconds from each SIGKILL to the first start of what its victim had not started."""
    by_key, found = stage.ledger.by_key(), []
    for harm, keys in piles:
        first = [min(run.start for run in by_key[key]) for key in keys]
        after = [start - harm.at for start in first if start > harm.at]
        found += [min(after)] if after else []
    return found


def play(stage: Scene, store: Store, kills: int, chance: random.Random) -> list[Figure]:
    """All blows under one stream of tasks, and the verdict."""
    keys, killed, piles = [], [], []
    gather(stage, store)
    with stage.stream(EVERY, SECONDS) as published:
        while len(killed) < kills:
            batch = stage.batch()
            keys += stage.publish("charge", stage.names(batch, 4), f"account{len(keys) % ACCOUNTS}", SECONDS / 2)
            harm, waiting = strike(stage, store, chance)
            if harm.lasting < TTL:
                killed.append(harm)
                piles += [(harm, waiting)] if waiting else []
                keys += waiting
            gather(stage, store)
    keys += published
    stage.wait_ended(keys, within=120)
    doubled, overlaps = stage.ledger.doubled(keys, stage.harms), stage.ledger.overlaps(stage.harms)
    took, waited = takeovers(stage, killed), waits(stage, piles)
    frozen = len(stage.harms) - len(killed)
    rows = [
        ("tasks", str(len(keys))),
        ("SIGKILLs, SIGSTOPs", f"{len(killed)}, {frozen}"),
        ("ran again, because cut off", str(len(stage.ledger.reruns(keys)))),
    ]
    for name, times in (("first start of what waited", waited), ("first restart elsewhere", took)):
        rows += [(f"{name}, after a SIGKILL, median", f"{median(times):.2f} s")] if times else []
    report.table(("lost", "0"), rows)
    if doubled or overlaps:
        sys.exit(f"run twice without an excuse: {sorted(doubled)}; locks that overlapped: {overlaps}")
    bars = (
        ("first start of what waited, SIGKILL, p99", waited, 0.5),
        ("first restart of what ran, SIGKILL, p99", took, 2.0),
    )
    return [Figure(name, p99(times), bar, "s") for name, times, bar in bars if times]


def run(args: argparse.Namespace) -> list[Figure]:
    """On servers of its own; a lost task ends it with an error that names it."""
    with private_rabbit() as rabbit, private_server() as redis, private_zookeeper() as zookeeper, folder() as path:
        url = f"zookeeper://{zookeeper.host}/kills" if args.store == "zookeeper" else redis.url
        store = store_from_url(url, prefix="_ha:", timeout=2.0, ttl=TTL)
        conf = json.dumps({"ha_store": url, "ha_max_deliveries": 20})
        with scene(redis, path, ttl=TTL, broker=rabbit.url(), PROBE_CONF=conf) as stage:
            try:
                return play(stage, store, args.kills, random.Random(args.seed))
            finally:
                store.close()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=1)
    parser.add_argument("--kills", type=int, help="workers to kill; default 50")
    parser.add_argument("--store", choices=("zookeeper", "redis"), default="zookeeper")
    parser.add_argument("--seed", type=int, default=1, help="who is struck and when")
    args = parser.parse_args(argv)
    args.kills = (2 if args.quick else 50) if args.kills is None else args.kills
    return args


if __name__ == "__main__":
    report.alone(parse, run)
