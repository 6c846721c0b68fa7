"""What the ledger of the probe app proves: lost, run twice without an excuse, locks that overlapped.

An execution is one run of a task's body: its claim, its process and when. All processes share one
machine, so the times of the ledger can be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Seconds before a death within which a finished attempt may not have been acknowledged yet: acks
#: travel with the next claim. Its task had started, so it may run again.
UNACKED = 1.0


@dataclass(frozen=True)
class Harm:
    """A signal sent to the main process of a worker, or to one process of its pool, by the wall clock."""

    node: str
    at: float
    #: Seconds for which its children may still start what they were given: until they die with it, or, if it
    #: is frozen, for its lease's TTL.
    lasting: float = 0.0
    #: The pool's process that was hit; None: the main process.
    pid: int | None = None
    #: Seconds before it within which a finished attempt may not have been acknowledged yet.
    unacked: float = UNACKED


@dataclass(frozen=True)
class Run:
    """One execution."""

    key: str
    claim: str
    pid: int
    node: str
    start: float
    end: float | None
    #: What else the task wrote; a locked one: the name and the token of its lock.
    extra: tuple[str, ...] = ()

    @property
    def lock(self) -> str | None:
        return self.extra[0] if len(self.extra) == 2 else None

    @property
    def token(self) -> int:
        return int(self.extra[1])

    @property
    def lease(self) -> str:
        return self.claim.rpartition(".")[0]

    def harmed_by(self, harms: Iterable[Harm]) -> Harm | None:
        """What cut it off: it was running on that node then, or had ended but not been acknowledged."""
        for harm in sorted(harms, key=lambda harm: harm.at):
            running = self.start <= harm.at + harm.lasting and (self.end is None or self.end >= harm.at - harm.unacked)
            if harm.node == self.node and harm.pid in (None, self.pid) and running:
                return harm
        return None


@dataclass(frozen=True)
class Overlap:
    """Two executions that had one lock at the same time, or got its tokens in the wrong order."""

    first: Run
    second: Run


class Ledger:
    """The file that the probe's tasks write to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[list[str]]:
        if not self.path.exists():
            return []
        # A reader may come in the middle of a write: what has no end of line yet is no line.
        return [line.split() for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def runs(self, prefix: str = "") -> list[Run]:
        """Every execution of a key that begins so, in the order they started."""
        open_: dict[tuple[str, ...], list[float]] = defaultdict(list)
        runs: list[tuple[tuple[str, ...], float]] = []
        for event, key, claim, pid, at, node, *extra in self.lines():
            one = (key, claim, pid, node, *extra)
            if not key.startswith(prefix):
                continue
            if event == "start":
                runs.append((one, float(at)))
            elif event == "end":
                open_[one].append(float(at))
        return [_run(one, start, open_[one].pop(0) if open_[one] else None) for one, start in runs]

    def by_key(self, prefix: str = "") -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs(prefix):
            found[run.key].append(run)
        return dict(found)

    def started(self, prefix: str = "") -> int:
        """How many keys have started."""
        return len(self.by_key(prefix))

    def ended(self, prefix: str = "") -> set[str]:
        """The keys that came to an end."""
        return {run.key for run in self.runs(prefix) if run.end is not None}

    def missing(self, keys: Collection[str]) -> set[str]:
        """The keys that did not come to an end."""
        return set(keys) - self.ended()

    def doubled(self, keys: Collection[str], harms: Sequence[Harm] = ()) -> dict[str, list[Run]]:
        """The keys that ran again although no earlier run was cut off.

        Each run after the first needs an excuse of its own: an earlier run that a harm cut off.
        """
        found = {}
        for key, runs in self.by_key().items():
            excused = sum(run.harmed_by(harms) is not None for run in runs)
            if key in keys and len(runs) - 1 > excused:
                found[key] = runs
        return found

    def reruns(self, keys: Collection[str]) -> set[str]:
        """The keys that ran more than once, for whatever reason."""
        return {key for key, runs in self.by_key().items() if key in keys and len(runs) > 1}

    def overlaps(self, harms: Sequence[Harm] = ()) -> list[Overlap]:
        """Pairs of executions that broke a lock: both had it, or the later one has no higher token."""
        by_lock: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            if run.lock is not None:
                by_lock[run.lock].append(run)
        return [
            Overlap(one, other)
            for runs in by_lock.values()
            for one, other in pairwise(runs)
            if other.start < _until(one, harms) or other.token <= one.token
        ]


def _run(one: tuple[str, ...], start: float, end: float | None) -> Run:
    key, claim, pid, node, *extra = one
    return Run(key, claim, int(pid), node, start, end, tuple(extra))


def _until(run: Run, harms: Sequence[Harm]) -> float:
    """When it had its last effect: one that was cut off has none after its worker's death."""
    if run.end is not None:
        return run.end
    harm = run.harmed_by(harms)
    return float("inf") if harm is None else harm.at
