"""One round: clients and workers on a server of their own, blows, and what the checker says of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.history.checker import Violation, check
from tests.history.client import LOCKS, Stage, newcomer
from tests.history.crew import OPTIONS, WORKERS, Crew
from tests.history.event import Event
from tests.history.plan import PERSISTENCE, Plan
from tests.support.fleet import eventually, fleet
from tests.support.server import RedisServer

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
    server = RedisServer(binary, *PERSISTENCE[plan.persistence])
    stage = Stage(folder, server.url, plan.ttl)
    admin = redis.Redis.from_url(server.url, socket_timeout=0.25, retry=None)
    settings = {"PROBE_BROKER": server.url, "PROBE_LEDGER": str(folder / "tasks"), "PROBE_TTL": str(plan.ttl)}
    try:
        with fleet(folder, **settings) as workers:
            crew = Crew(stage, server, workers, admin, plan.seed)
            try:
                workers.start_many(WORKERS, *OPTIONS)
                for _ in range(plan.clients):
                    crew.hire()
                _Script(plan, stage, crew, admin).play()
            finally:
                crew.close()
    finally:
        admin.close()
        server.close()
    events = stage.ledger.events()
    granted = sum(event.kind == "granted" for event in events)
    lost = sum(event.kind == "released" and not event.yes for event in events)
    return Outcome(plan, granted, lost, check(events, plan.ttl), events)


class _Script:
    """What happens when."""

    def __init__(self, plan: Plan, stage: Stage, crew: Crew, admin: redis.Redis) -> None:
        self._plan, self._stage, self._crew, self._admin = plan, stage, crew, admin
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
        with suppress(AssertionError):
            eventually(lambda: not self._left(), within=HANG)
        for key in self._left():
            self._ledger.note("left", lock=key)

    def _strike_all(self) -> None:
        began = time.monotonic()
        due: list[tuple[float, Callable[[], object]]] = []
        blows = list(self._plan.blows)
        while (now := time.monotonic() - began) < self._plan.seconds or due:
            if blows and now >= blows[0].at:
                blow = blows.pop(0)
                end = self._crew.strike(blow, kept=self._plan.persistence != "none")
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
        pipe = self._admin.pipeline(transaction=True)
        for name in LOCKS:
            pipe.lrange(f"_ha:line:{name}", 0, -1)
        try:
            lines = dict(zip(LOCKS, pipe.execute(), strict=True))
            entries = {name: [_fields(entry) for entry in line] for name, line in lines.items()}
            if any(lease not in self._owners for line in entries.values() for lease, _ in line):
                self._owners.update(self._crew.owners())
        except (redis.RedisError, OSError):
            return
        for name, line in entries.items():
            seen = tuple((self._owners.get(lease, 0), claim) for lease, claim in line)
            if seen != self._lines.get(name, ()):
                self._lines[name] = seen
                self._ledger.note("line", lock=name, line=seen)

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
        patterns = ("_ha:lock:*", "_ha:line:*", "_ha:held:*", "_ha:claims:*")
        try:
            return sorted(key.decode() for pattern in patterns for key in self._admin.scan_iter(pattern))
        except redis.RedisError as error:
            return [f"(the server did not say: {error})"]


def _fields(entry: bytes) -> tuple[str, str]:
    """Lease and claim of a caller in line; the form of an entry is told in ``line.lua``."""
    parts: list[str] = []
    while entry:
        length, _, rest = entry.partition(b":")
        parts.append(rest[: int(length)].decode())
        entry = rest[int(length) :]
    return parts[1], parts[2]
