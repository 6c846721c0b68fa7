"""Real beat processes on a scene, and what the store and the ledger say about their firings."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from celery_ha.beat import Entry, Overview, overview
from celery_ha.beat.outbox import ids
from celery_ha.model import Firing
from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene

SCHEDULER = "celery_ha.beat:Scheduler"
TASK = "tests.support.probe.tick"


def every(seconds: float, **more: object) -> dict[str, str]:
    """The environment of a probe with one entry."""
    entry = {"tick": {"task": TASK, "schedule": seconds}}
    return {"PROBE_CONF": json.dumps({"beat_schedule": entry, **more})}


@dataclass
class Beats:
    """The beats of a scene and every firing that was ever seen in their history."""

    scene: Scene
    beats: list[Worker] = field(default_factory=list)
    seen: dict[tuple[int, int], Firing] = field(default_factory=dict)

    def start(self, count: int = 1, scheduler: str = SCHEDULER, **environment: str) -> list[Worker]:
        started = [self.scene.fleet.launch("beat", "beat", "-S", scheduler, **environment) for _ in range(count)]
        for beat in started:
            beat.name = f"beat-{beat.pid}@{socket.gethostname()}"
        self.beats += started
        return started

    def wait_in_line(self) -> None:
        """Until every living beat is known and one of them leads."""
        names = {beat.name for beat in self.beats if beat.alive}
        eventually(lambda: names <= set(self.look().beats), every=0.1, why=f"{names} registered")
        self.leader()

    def look(self) -> Overview:
        found = overview(self.scene.probe.app)
        for _, firing in found.history:
            self.seen[firing.term, firing.number] = firing
        return found

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.look().entries if entry.name == name), None)

    def leader(self) -> Worker:
        def found() -> Worker | None:
            name = self.look().leader
            return next((beat for beat in self.beats if beat.name == name and beat.alive), None)

        beat: Worker = eventually(found, every=0.05, why="a beat in office")
        return beat

    def firings(self) -> list[Firing]:
        """Every firing, in order."""
        self.look()
        return sorted(self.seen.values(), key=lambda firing: (firing.due, firing.number))

    def wait_fired(self, count: int, *, by: str | None = None) -> None:
        """Until so many firings more, of one beat, were claimed."""

        def fired() -> int:
            return sum(by in {None, firing.by} for firing in self.firings())

        before = fired()
        eventually(lambda: fired() >= before + count, every=0.05, why=f"{count} more firings by {by or 'anybody'}")

    def runs(self) -> Counter[str]:
        """How often each firing ran, by its task id."""
        return Counter(run.key for run in self.scene.ledger.runs())

    def wait_all_ran(self) -> None:
        eventually(lambda: {self.task_id(firing) for firing in self.firings()[:-2]} <= set(self.runs()), why="all ran")

    def task_id(self, firing: Firing) -> str:
        return ids(self.scene.probe.app.ha.config.prefix, firing)[0]

    def faults(self, seconds: float) -> list[str]:
        """What is wrong with an entry of so many seconds: a tick twice, a tick not at all, a run of no tick.

        The last firing may still be on its way.
        """
        self.wait_all_ran()
        firings, runs = self.firings(), self.runs()
        found = [f"{key} ran {times} times" for key, times in runs.items() if times > 1]
        found += [f"{key} is no firing" for key in runs.keys() - {self.task_id(firing) for firing in firings}]
        found += [
            f"number {after.number} came after {before.number}, {after.due - before.due:.3f} s later"
            for before, after in pairwise(firings)
            if after.number != before.number + 1 or abs(after.due - before.due - seconds) > 0.001
        ]
        return found
