"""Takeover: from a worker's death to the first start elsewhere of what it held, and of what waited on its shards.

Three real workers run short keyed tasks from a sharded queue. SIGKILL of one's main process, at each
size of the backlog by turns; then SIGSTOP of a whole worker, where the lease's TTL must run out first.
What the dead worker held is read from the broker, right after the blow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import psutil

from benchmarks import report
from benchmarks.report import Figure, median, p99
from benchmarks.stage import PROBE, Copies, folder, private_server
from benchmarks.tail import Entry, Tail
from celery_ha.brokers.connect import RedisAccess
from celery_ha.brokers.redis import RedisBroker
from celery_ha.keys import shard_names
from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene, scene

WORKERS, SHARDS = 3, 12
#: Seconds that each task takes.
TASK = 0.1
#: Seconds after which a takeover counts as one that never came.
PATIENCE = 60.0
#: Seconds between two looks at the ledger.
LOOK_EVERY = 0.01
#: Bars, in seconds: of a kill, and of a freeze beyond the TTL; and the factor between backlogs.
MEDIAN, WORST, FROZEN, FACTOR = 1.0, 2.0, 2.0, 1.2


@dataclass(frozen=True)
class Takeover:
    """Seconds after the blow; infinite: it did not happen."""

    #: A task that the dead worker held started elsewhere.
    held: float
    #: A task on one of its shards started elsewhere.
    shard: float
    #: Its lease was fenced.
    fenced: float
    #: It was the leader.
    led: bool

    def later(self, by: float) -> Takeover:
        return Takeover(self.held - by, self.shard - by, self.fenced - by, self.led)


@dataclass(frozen=True)
class Aim:
    """Whom to strike, and what was its own."""

    worker: Worker
    lease: str
    shards: frozenset[str]
    #: It is the leader.
    leads: bool


class Fleet:
    """Workers to strike, and the backlog they work on."""

    def __init__(self, stage: Scene) -> None:
        self._stage = stage
        self._broker: RedisBroker = RedisAccess(stage.probe.app).broker(timeout=10.0, dead_limit=1)
        self._copies = Copies(stage.redis, stage.probe.app, f"{PROBE}.order", "unused")
        self._tail = Tail(stage.ledger.path)
        self._pushed = 0
        self._chance = random.Random(7)
        self._family: list[psutil.Process] = []

    def ready(self, backlog: int) -> Aim:
        """All there, all busy, so many waiting: pick one that holds something."""
        self._stage.top_up(WORKERS)
        time.sleep(self._stage.ttl + 1)  # the leader has watched everybody for a TTL
        self.fill(backlog)
        time.sleep(1)
        while True:
            victim = self._chance.choice(self._stage.live)
            lease = self._stage.node(victim).lease
            if self._broker.in_flight(lease):
                return Aim(victim, lease, self._stage.shards(victim), self._stage.leader is victim)

    def fill(self, backlog: int) -> None:
        """Make it so many waiting tasks, the same number on each shard."""
        each = max(1, backlog // SHARDS)
        for shard in shard_names("orders", SHARDS):
            waiting = self._stage.waiting(shard)
            if waiting > each:
                self._stage.redis.ltrim(shard, -each, -1)
            else:
                self._copies.push(shard, self._calls(shard, each - waiting))

    def _calls(self, shard: str, count: int) -> Iterator[tuple[str, float]]:
        for _ in range(count):
            self._pushed += 1
            yield f"{shard}:{self._pushed}", TASK

    def kill(self, backlog: int) -> Takeover:
        """SIGKILL for a main process; once more if it held nothing in that moment."""
        found = None
        while found is None:
            aim = self.ready(backlog)
            self._family = psutil.Process(aim.worker.pid).children(recursive=True)
            harm = self._stage.kill(aim.worker)
            self._stage.fleet.workers.remove(aim.worker)  # its number may be somebody else's from now on
            found = self._watch(aim, harm.at)
            self._bury()
        return found

    def freeze(self, backlog: int) -> tuple[Takeover, float]:
        """SIGSTOP for a worker with its children, SIGCONT after the takeover: and seconds until it is back."""
        found = None
        while found is None:
            aim = self.ready(backlog)
            at = time.time()
            os.killpg(aim.worker.pid, signal.SIGSTOP)
            try:
                found = self._watch(aim, at)
            finally:
                os.killpg(aim.worker.pid, signal.SIGCONT)
            thawed = time.monotonic()
        self._wait_back(aim)
        return found, time.monotonic() - thawed

    def end(self) -> None:
        """No child outlives the benchmark."""
        self._bury()
        self._broker.client.close()

    def _wait_back(self, aim: Aim) -> None:
        """Until it has a new lease."""
        name = aim.worker.name
        eventually(
            lambda: any(node.name == name and node.lease != aim.lease for node in self._stage.nodes()),
            why=f"{name} is back",
        )

    def _watch(self, aim: Aim, at: float) -> Takeover | None:
        """See how it goes on after a blow at that time; None: it held nothing."""
        held = {_key(claim.payload) for claim in self._broker.in_flight(aim.lease)}
        if not held:
            return None
        after_held = after_shard = math.inf
        deadline = time.monotonic() + PATIENCE
        while math.inf in (after_held, after_shard) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
            starts = [(entry.key, entry.at - at) for entry in self._tail.new() if _elsewhere(entry, aim, at)]
            after_held = min([after_held, *(after for key, after in starts if key in held)])
            after_shard = min([after_shard, *(after for key, after in starts if _shard(key) in aim.shards)])
        return Takeover(after_held, after_shard, self._fenced_at(aim.lease) - at, aim.leads)

    def _fenced_at(self, lease: str) -> float:
        """When the store wrote that the lease is fenced; its clock is ours."""

        def entry() -> float | None:
            found = (e["fenced"]["at"] for e in self._stage.history() if e["recovered"]["lease"] == lease)
            return next(found, None)

        with suppress(AssertionError):
            return float(eventually(entry, within=PATIENCE))
        return math.inf

    def _bury(self) -> None:
        """Children end with their main process; what does not is ended here."""
        _, left = psutil.wait_procs(self._family, timeout=10)
        for child in left:
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:  # ended, but nobody has asked yet
                    print(f"child {child.pid} outlived its main process", file=sys.stderr)
                    child.kill()
        self._family = []


def _elsewhere(entry: Entry, aim: Aim, at: float) -> bool:
    """A start after the blow on another node."""
    return entry.event == "start" and entry.at > at and entry.node != aim.worker.name


def _shard(key: str) -> str:
    """See :meth:`Fleet.fill`."""
    return key.partition(":")[0]


def _key(payload: bytes) -> str:
    """The first argument of a task message."""
    args, *_ = json.loads(b64decode(json.loads(payload)["body"]))
    return str(args[0])


@contextmanager
def workers(ttl: float) -> Iterator[Fleet]:
    """A fleet on a server of its own."""
    with ExitStack() as stack:
        server, logs = stack.enter_context(private_server()), stack.enter_context(folder())
        stage = stack.enter_context(scene(server, logs, ttl=ttl, PROBE_SHARDS=str(SHARDS), PROBE_PREFETCH="1"))
        fleet = Fleet(stage)
        try:
            yield fleet
        finally:
            fleet.end()


def run(args: argparse.Namespace) -> list[Figure]:
    """Kill at each backlog by turns, then freeze."""
    kills: dict[int, list[Takeover]] = {backlog: [] for backlog in args.backlog}
    with workers(args.ttl) as fleet:
        for _ in range(args.rounds):
            for backlog, found in kills.items():
                found.append(fleet.kill(backlog))
        stops = [fleet.freeze(args.backlog[0]) for _ in range(args.stops)]
    rows = [row(f"SIGKILL, {backlog} waiting", found) for backlog, found in kills.items()]
    beyond = [takeover.later(args.ttl) for takeover, _ in stops]
    if stops:
        rows.append(row(f"SIGSTOP, minus the TTL of {args.ttl:g} s", beyond))
    table(rows)
    if stops:
        print(f"after SIGCONT back under a new lease within {max(back for _, back in stops):.2f} s at the most")
    return figures(kills, beyond)


def table(rows: Sequence[Sequence[str]]) -> None:
    head = ("seconds until", "times", "of leader", "held starts", "p99", "max", "shard starts", "p99", "max", "fenced")
    report.table(head, rows)


def row(name: str, found: Sequence[Takeover]) -> list[str]:
    cells = [name, str(len(found)), str(sum(takeover.led for takeover in found))]
    for field in ("held", "shard"):
        cells += [f"{of([getattr(takeover, field) for takeover in found]):.2f}" for of in (median, p99, max)]
    return [*cells, f"{median(takeover.fenced for takeover in found):.2f}"]


def figures(kills: dict[int, list[Takeover]], stops: Sequence[Takeover]) -> list[Figure]:
    """What has a bar; ``stops`` are beyond the TTL already."""
    least, most = min(kills), max(kills)
    held = [takeover.held for takeover in kills[least]]
    made = [
        Figure("takeover after SIGKILL, median", median(held), MEDIAN, "s"),
        Figure("takeover after SIGKILL, p99", p99(held), WORST, "s"),
    ]
    if stops:
        made.append(Figure("takeover after SIGSTOP, worst, minus TTL", max(t.held for t in stops), FROZEN, "s"))
    if most > least:
        for name, what in (("held", "first it held"), ("shard", "first of its shards")):
            more, less = (median(getattr(takeover, name) for takeover in kills[size]) for size in (most, least))
            made.append(Figure(f"takeover, {most} against {least} waiting, {what}", more / less, FACTOR))
    return made


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--quick`` fills in what is not given."""
    parser = report.parser(__doc__, rounds=20)
    parser.add_argument("--stops", type=int, help="how often a worker is frozen; default 5")
    parser.add_argument("--ttl", type=float, help="seconds; default 4")
    parser.add_argument("--backlog", type=int, nargs="+", help="waiting tasks; default 1000 200000")
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (1 if args.quick else 20)
    args.stops = (1 if args.quick else 5) if args.stops is None else args.stops
    args.ttl = args.ttl or (2.0 if args.quick else 4.0)
    args.backlog = args.backlog or ([200, 2_000] if args.quick else [1_000, 200_000])
    return args


if __name__ == "__main__":
    report.alone(parse, run)
