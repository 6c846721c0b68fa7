"""One round: clients and workers on a server of their own, blows, and what the checker says of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.history.arena import Arena, arena
from tests.history.checker import Violation, check
from tests.history.client import Stage, newcomer
from tests.history.crew import OPTIONS, WORKERS, Crew
from tests.history.event import Event
from tests.history.peek import Away
from tests.history.plan import Plan
from tests.support.fleet import eventually, fleet

#: Seconds between two looks at who stands in line.
LOOK_EVERY = 0.02
#: Seconds for what should happen at once, on a busy machine.
HANG = 20.0


@dataclass
class Outcome:
    """What became of a round."""

    plan: Plan
    grants: int = 0
    losses: int = 0
    violations: list[Violation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.violations


def play(plan: Plan, binary: str, folder: Path) -> Outcome:
    """Play a round; ledger and logs stay in the folder."""
    with arena(plan, binary) as place:
        stage = Stage(folder, place.broker, place.store, plan.ttl)
        settings = {
            "PROBE_BROKER": place.broker,
            "PROBE_CONF": json.dumps({"ha_store": place.store}),
            "PROBE_LEDGER": str(folder / "tasks"),
            "PROBE_TTL": str(plan.ttl),
        }
        with fleet(folder, **settings) as workers:
            crew = Crew(stage, place, workers, plan.seed)
            try:
                workers.start_many(WORKERS, *OPTIONS)
                for _ in range(plan.clients):
                    crew.hire()
                _Script(plan, stage, crew, place).play()
            finally:
                crew.close()
        session = place.session
    events = stage.ledger.events()
    granted = sum(event.kind == "granted" for event in events)
    lost = sum(event.kind == "released" and not event.yes for event in events)
    return Outcome(plan, granted, lost, check(events, plan.ttl, session), events)


class _Script:
    """What happens when."""

    def __init__(self, plan: Plan, stage: Stage, crew: Crew, arena: Arena) -> None:
        self._plan, self._stage, self._crew, self._arena = plan, stage, crew, arena
        self._ledger = stage.ledger
        self._lines: dict[str, tuple[tuple[int, str], ...]] = {}
        self._owners: dict[str, int] = {}

    def play(self) -> None:
        self._strike_all()
        self._stage.enough.touch()
        self._until(self._idle, "hung")
        guest = self._crew.hire(newcomer)
        self._until(lambda: guest not in self._crew.clients, "hung")
        self._stage.over.touch()
        self._until(lambda: not self._crew.clients, "hung")
        left: list[str] = []

        def gone() -> bool:
            left[:] = self._left()
            return not left

        with suppress(AssertionError):
            eventually(gone, within=HANG)
        for key in left:
            self._ledger.note("left", lock=key)
        self._date()

    def _strike_all(self) -> None:
        began = time.monotonic()
        due: list[tuple[float, Callable[[], object]]] = []
        blows = list(self._plan.blows)
        while (now := time.monotonic() - began) < self._plan.seconds or due:
            if blows and now >= blows[0].at:
                blow = blows.pop(0)
                end = self._crew.strike(blow)
                if end is not None:
                    due.append((now + blow.lasting, end))
            for one in [one for one in due if now >= one[0]]:
                due.remove(one)
                one[1]()
            self._crew.reap()
            self._look()
            time.sleep(LOOK_EVERY)

    def _look(self) -> None:
        """Note who stands in line, if it has changed."""
        try:
            entries = self._arena.lines()
            if any(lease not in self._owners for line in entries.values() for lease, _ in line):
                self._owners.update(self._arena.owners())
        except Away:
            return
        for name, line in entries.items():
            seen = tuple((self._owners.get(lease, 0), claim) for lease, claim in line)
            if seen != self._lines.get(name, ()):
                self._lines[name] = seen
                self._ledger.note("line", lock=name, line=seen)

    def _date(self) -> None:
        """Note when the server gave what was granted, where a token does not tell."""
        dates = self._arena.dates()
        tokens = {event.token for event in self._ledger.events() if event.kind == "granted"}
        for token in sorted(tokens) if dates else ():
            self._ledger.note("dated", token=token, served=dates[token])

    def _idle(self) -> bool:
        idle = {event.pid for event in self._ledger.events() if event.kind == "idle"}
        return idle.issuperset(self._crew.clients)

    def _until(self, happened: Callable[[], bool], complaint: str) -> None:
        """Wait for it; who keeps us waiting writes its stack to its log and is ended."""
        deadline = time.monotonic() + HANG
        while self._crew.reap() or not happened():
            if time.monotonic() > deadline:
                idle = {event.pid for event in self._ledger.events() if event.kind == "idle"}
                for pid in [pid for pid in self._crew.clients if self._stage.over.exists() or pid not in idle]:
                    self._ledger.note(complaint, pid=pid)
                    os.kill(pid, signal.SIGUSR1)
                    time.sleep(LOOK_EVERY)
                    os.kill(pid, signal.SIGKILL)
                deadline += HANG
            self._look()
            time.sleep(LOOK_EVERY)

    def _left(self) -> list[str]:
        try:
            return self._arena.left()
        except Away as error:
            return [f"(the server did not say: {error})"]
