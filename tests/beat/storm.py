"""Strikes the beat in office again and again, and asks the ledger what became of its ticks."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.beats import Beats, every
from tests.support.fleet import Worker, eventually
from tests.support.scene import scene
from tests.support.server import RedisServer
from tests.support.zookeeper import ZooKeeper

#: Seconds between two firings.
EVERY = 1.0


@dataclass
class Outcome:
    """What a storm found."""

    firings: int
    kills: int
    freezes: int
    #: Seconds from the signal to the start of the next tick of another beat.
    after_kill: list[float]
    after_freeze: list[float]
    faults: list[str]
    #: Beats that ended without having been struck.
    exits: list[str]
    seconds: float

    @property
    def held(self) -> bool:
        return not self.faults and not self.exits


def storm(
    strikes: int,
    seed: int,
    server: RedisServer,
    folder: Path,
    *,
    ttl: float = 10.0,
    restarts: int = 0,
    store: ZooKeeper | None = None,
    beats: int = 3,
    say: Callable[[str], Any] = lambda line: None,
) -> Outcome:
    """Kill the beat in office at every other strike, freeze it at the others until another has fired.

    Args:
        restarts: how often the store is restarted in between, which only a durable server survives.
        store: None: the broker's server.
    """
    dice, began = random.Random(seed), time.monotonic()
    after: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
    struck: set[str] = set()
    more = {"ha_store": store.url} if store else {}
    with scene(server, folder, ttl=ttl, **every(EVERY, **more)) as stage:
        stage.start(1, "-Q", "celery", "-c", "2", "--without-gossip", "--without-mingle")
        troupe = Beats(stage)
        troupe.start(beats)
        restart_at = set(dice.sample(range(1, strikes), restarts)) if restarts else set()
        for number in range(strikes):
            troupe.wait_in_line()
            troupe.wait_fired(1, by=troupe.leader().name)
            if number in restart_at:
                (store or server).stop()
                (store or server).start()
                troupe.wait_fired(2)
            time.sleep(dice.random() * EVERY)  # anywhere between two ticks
            signum = signal.SIGSTOP if number % 2 else signal.SIGKILL
            victim = troupe.leader()
            struck.add(victim.name)
            took = _strike(troupe, victim, signum)
            after[signum].append(took)
            if signum == signal.SIGKILL:
                troupe.beats.remove(victim)
                troupe.start()
            say(f"{number + 1}/{strikes} {signal.Signals(signum).name}: next tick after {took:.2f} s")
        troupe.wait_in_line()
        troupe.wait_fired(3)
        exits = [beat.name for beat in troupe.beats if not beat.alive]
        faults = troupe.faults(EVERY)
        return Outcome(
            len(troupe.firings()),
            len(after[signal.SIGKILL]),
            len(after[signal.SIGSTOP]),
            after[signal.SIGKILL],
            after[signal.SIGSTOP],
            faults,
            exits,
            time.monotonic() - began,
        )


def _strike(troupe: Beats, victim: Worker, signum: int) -> float:
    at = victim.send(signum)
    if signum == signal.SIGKILL:
        victim.process.wait()
    found: float = eventually(lambda: _next_tick(troupe, victim, at), every=0.05, why=f"a tick after {victim.name}")
    if signum == signal.SIGSTOP:
        victim.send(signal.SIGCONT)
    return found - at


def _next_tick(troupe: Beats, victim: Worker, at: float) -> float | None:
    """When the first tick claimed by another beat after a moment began to run."""
    others = {troupe.task_id(firing) for firing in troupe.firings() if firing.by != victim.name}
    starts = [run.start for run in troupe.scene.ledger.runs() if run.key in others and run.start > at]
    return min(starts) if starts else None
