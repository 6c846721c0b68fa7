"""A stream of short tasks, and workers that are killed and frozen under it at random; then a verdict.

Everything random comes from one seed. What processes do with it is up to the machine, so a seed
repeats the blows and not their every consequence.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.fleet import Worker, eventually
from tests.support.ledger import Harm, Ledger, Run
from tests.support.scene import Scene, scene
from tests.support.server import RedisServer

OPTIONS = ("-Q", "orders,celery,reports", "-c", "2", "--without-gossip", "--without-mingle")
ACCOUNTS = 6
#: Seconds to wait for whatever should happen; far above what is normal.
HANG = 120.0
#: Chances of a second victim in the same moment, of a name that is used again, of a victim that is still starting.
TWINS, NAMESAKE, NEWBORN = 0.1, 0.3, 0.1


@dataclass(frozen=True)
class Plan:
    """What is going to happen."""

    kills: int = 100
    freezes: int = 0
    seed: int = 1
    workers: int = 4
    #: Seconds; the lease TTL.
    ttl: float = 2.5
    #: Tasks published a second.
    rate: float = 30.0
    #: Seconds between two blows, at least and at most.
    pause: tuple[float, float] = (0.5, 1.5)
    #: Times that the server stands still, for half a TTL to two.
    stalls: int = 0


@dataclass
class Outcome:
    """What the ledger and the server say afterwards."""

    seed: int
    kills: int = 0
    freezes: int = 0
    stalls: int = 0
    published: int = 0
    seconds: float = 0.0
    #: Tasks that ran again because their worker was struck while they ran: at-least-once, as promised.
    reruns: int = 0
    #: Seconds from a kill to the next start of a task that it cut off.
    takeover_median: float | None = None
    takeover_worst: float | None = None
    #: Keys that never came to an end.
    lost: list[str] = field(default_factory=list)
    #: Keys that ran again although no earlier run was cut off.
    doubled: list[str] = field(default_factory=list)
    #: Locks that two executions had at once, or whose tokens went backwards.
    overlaps: list[str] = field(default_factory=list)
    #: Messages among the dead letters, though every task is a good one.
    dead_letters: int = 0
    #: Workers that ended without being killed.
    exits: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.overlaps or self.dead_letters or self.exits)

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "held": self.held})


def storm(plan: Plan, server: RedisServer, folder: Path, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run the plan on a server that nobody else uses; ledger and logs stay in the folder."""
    settings = {"PROBE_PREFETCH": "4", "PROBE_CONF": json.dumps({"ha_max_deliveries": 20})}
    began = time.monotonic()
    with scene(server, folder, ttl=plan.ttl, options=OPTIONS, **settings) as made:
        made.top_up(plan.workers)
        tell(f"{plan.workers} workers are ready; seed {plan.seed}")
        publisher = Publisher(made, plan)
        with publisher.at_work():
            Striker(made, plan, tell).strike_all()
        tell(f"published {len(publisher.keys)}; waiting for the last of them")
        _wait_until_quiet(made, publisher.keys)
        outcome = _outcome(made, plan, publisher.keys)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


class Publisher:
    """Publishes to all kinds of queue at a modest rate, in a thread."""

    def __init__(self, made: Scene, plan: Plan) -> None:
        self.keys: list[str] = []
        self._scene, self._plan = made, plan
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._publish, daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(HANG)
        assert not self._thread.is_alive(), "the publisher hangs"
        if self._failure is not None:
            raise self._failure

    def _publish(self) -> None:
        chance, probe = random.Random(f"{self._plan.seed}-tasks"), self._scene.probe
        kinds = itertools.cycle(["order", "work", "charge", "report", "order", "charge"])
        try:
            for number in itertools.count():
                kind, seconds = next(kinds), round(chance.uniform(0, 0.12), 3)
                key = f"{kind}-{number}"
                if kind == "charge":
                    probe.charge.delay(key, f"account{chance.randrange(ACCOUNTS)}", seconds / 3)
                elif kind == "report":
                    probe.work.apply_async((key, seconds), queue="reports", priority=chance.choice([0, 3, 6, 9]))
                else:
                    getattr(probe, kind).delay(key, seconds)
                self.keys.append(key)
                if self._over.wait(1 / self._plan.rate):
                    return
        except BaseException as exc:  # noqa: BLE001 - told by the thread that waits for this one
            self._failure = exc


class Striker:
    """Kills and freezes worker mains and replaces the killed ones at once."""

    def __init__(self, made: Scene, plan: Plan, tell: Callable[[str], None]) -> None:
        self._scene, self._plan, self._tell = made, plan, tell
        self._chance = random.Random(f"{plan.seed}-blows")
        self._frozen: list[tuple[float, Worker]] = []

    def strike_all(self) -> None:
        blows = ["kill"] * self._plan.kills + ["freeze"] * self._plan.freezes + ["stall"] * self._plan.stalls
        self._chance.shuffle(blows)
        at = 0
        while at < len(blows):
            time.sleep(self._chance.uniform(*self._plan.pause))
            eventually(self._may_strike, within=HANG, why="half of the workers ready")
            together = 2 if self._chance.random() < TWINS and blows[at : at + 2] == ["kill", "kill"] else 1
            for blow in blows[at : at + together]:
                {"kill": self._kill, "freeze": self._freeze, "stall": self._stall}[blow]()
            at += together
            if at % 10 == 0 or at == len(blows):
                self._tell(f"{at} of {len(blows)} blows; {len(self._scene.ledger.lines())} lines in the ledger")
        eventually(self._thaw, within=HANG)

    def _may_strike(self) -> bool:
        self._thaw()
        return len(self._ready()) > self._plan.workers // 2

    def _ready(self) -> list[Worker]:
        frozen = [worker for _, worker in self._frozen]
        return [worker for worker in self._scene.live if worker not in frozen and worker.said(" ready.")]

    def _victim(self) -> Worker:
        ready = self._ready()
        newborn = [worker for worker in self._scene.live if not worker.said(" ready.")]
        pool = newborn if newborn and self._chance.random() < NEWBORN else ready
        return self._chance.choice(pool or self._scene.live)

    def _kill(self) -> None:
        victim = self._victim()
        self._scene.kill(victim)
        self._frozen = [(until, worker) for until, worker in self._frozen if worker is not victim]
        name = victim.name if self._chance.random() < NAMESAKE else None
        self._scene.fleet.start(*OPTIONS, name=name, ready=False)

    def _freeze(self) -> None:
        victim = self._chance.choice(self._ready())
        self._scene.kill(victim, signal.SIGSTOP)
        self._frozen.append((time.monotonic() + self._plan.ttl * self._chance.uniform(1.5, 2.5), victim))

    def _stall(self) -> None:
        """The server stands still; nothing that dies of it is excused."""
        self._scene.server.send(signal.SIGSTOP)
        time.sleep(self._plan.ttl * self._chance.uniform(0.5, 2))
        self._scene.server.send(signal.SIGCONT)

    def _thaw(self) -> bool:
        """Let go on who was frozen for long enough; True: nobody is frozen."""
        for until, worker in list(self._frozen):
            if time.monotonic() >= until:
                worker.send(signal.SIGCONT)
                self._frozen.remove((until, worker))
        return not self._frozen


def _wait_until_quiet(made: Scene, keys: list[str]) -> None:
    """As long as there is progress; what is not there then is lost."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < HANG / 4:
        missing = len(made.ledger.missing(keys))
        if missing == 0:
            break
        if missing != seen:
            seen, since = missing, time.monotonic()
        time.sleep(0.2)
    else:
        return
    made.wait_idle()


def _outcome(made: Scene, plan: Plan, keys: list[str]) -> Outcome:
    ledger, harms = made.ledger, made.harms
    killed = [harm for harm in harms if harm.lasting < plan.ttl]
    took = sorted(takeovers(ledger, killed))
    return Outcome(
        seed=plan.seed,
        kills=len(killed),
        freezes=len(harms) - len(killed),
        stalls=plan.stalls,
        published=len(keys),
        reruns=len(ledger.reruns(keys)),
        takeover_median=round(statistics.median(took), 2) if took else None,
        takeover_worst=round(took[-1], 2) if took else None,
        lost=sorted(ledger.missing(keys)),
        doubled=sorted(ledger.doubled(keys, harms)),
        overlaps=[f"{one.first.lock}: {one.first.key}, {one.second.key}" for one in ledger.overlaps(harms)],
        dead_letters=len(made.hash("dead")),
        exits=[worker.name for worker in made.fleet.workers if worker.process.poll() not in (None, -signal.SIGKILL)],
    )


def takeovers(ledger: Ledger, killed: list[Harm]) -> list[float]:
    """For each kill that cut something off, seconds until the first of that started again."""
    first: dict[Harm, float] = {}
    for runs in ledger.by_key().values():
        for one, again in itertools.pairwise(runs):
            harm = _cut(one, killed)
            if harm is not None and again.start > harm.at:
                first[harm] = min(first.get(harm, float("inf")), again.start - harm.at)
    return list(first.values())


def _cut(run: Run, killed: list[Harm]) -> Harm | None:
    return run.harmed_by(killed) if run.end is None else None
