"""What is written down about a lock, its holders and the blows they take: one line an event, in one write."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """One thing that happened, by the clock that all processes of the machine share.

    Of a client, in this order for each hold: ``ask``; ``claim``; ``granted`` (after the grant); any ``touch``;
    ``releasing`` (before the release is asked for); last ``released``, ``busy`` or ``unavailable``.
    Then ``idle`` when it takes no lock any more. Of whoever strikes them: ``kill``, ``stop`` and ``cut``
    before it is done, ``cont`` after; of the server ``stall`` and ``down`` before, ``unstall`` and ``up``
    after. ``line`` shows who stands in line. In the end ``exit``, ``hung`` and ``left``, and ``dated`` for each
    token that does not tell by itself when it was given.
    """

    at: float
    kind: str
    pid: int = 0
    lock: str = ""
    #: Number of the hold in its process.
    hold: int = 0
    token: int = 0
    claim: str = ""
    #: ``touch``: accepted. ``released``: still held. ``down``: its memory survives. ``exit``: as it should.
    yes: bool = True
    limit: int = 1
    #: Seconds; 0: never.
    max_hold: float = 0.0
    #: Seconds to stand in line for it; -1: as long as it takes.
    wait: float = 0.0
    #: ``dated``: wall clock of the server, seconds.
    served: float = 0.0
    #: Process id and claim of all in a ``line``, the first one first.
    line: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        shown = [
            f"{spec.name}={value}" for spec in fields(self)[2:] if (value := getattr(self, spec.name)) != spec.default
        ]
        return f"{self.at:.6f} {self.kind:11} {' '.join(shown)}"


class Ledger:
    """An append-only file of events; what is in it survives any kill."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, kind: str, **what: object) -> None:
        """Write one event of this moment."""
        line = json.dumps(asdict(Event(time.time(), kind, **what))) + "\n"  # type: ignore[arg-type]
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def events(self) -> list[Event]:
        """All events in the order they were written."""
        return [_load(line) for line in self.path.read_text().splitlines()]


def _load(line: str) -> Event:
    found = json.loads(line)
    return Event(**{**found, "line": tuple((pid, claim) for pid, claim in found["line"])})
