"""What the ledger proves: lost, run twice, lock overlaps, and when things happened. Pure.

An execution is one run of a task's body. All processes share one machine, so their
monotonic clocks are one clock and executions can be ordered by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

START, END, TOLD = "start", "end", "told"

#: Seconds before a death within which a finished attempt may not have been acknowledged yet: acks
#: travel with the next claim. Such a task had been running, and may run again.
UNACKED = 0.5


@dataclass(frozen=True)
class Event:
    """One line of the ledger."""

    #: ``start``; ``end``; ``told``: the body was told that its lock is lost, and had no effect.
    event: str
    task: str
    #: Name of the lock the body holds.
    lock: str
    #: Id of this execution.
    run: str
    #: 1, or more if earlier attempts had started.
    attempt: int
    pid: int
    node: str
    #: The lock's token.
    token: int
    wall: float
    #: Monotonic time.
    mono: float


@dataclass(frozen=True)
class Death:
    """What was done to the victim, in monotonic time."""

    node: str
    at: float


@dataclass(frozen=True)
class Execution:
    """One run of a task's body."""

    task: str
    lock: str
    node: str
    attempt: int
    token: int
    started: float
    #: None: it did not come to its end.
    ended: float | None = None

    def cut_off(self, death: Death | None) -> bool:
        """Whether it had been running when its worker died, or was not acknowledged yet."""
        if death is None or self.node != death.node or self.started > death.at:
            return False
        return self.ended is None or self.ended >= death.at - UNACKED

    def until(self, death: Death | None) -> float:
        """When it had its last effect: a body that was cut off has none after its worker's death."""
        if self.ended is not None:
            return self.ended
        if death is not None and self.node == death.node and self.started <= death.at:
            return death.at
        return float("inf")


@dataclass(frozen=True)
class Overlap:
    """Two executions that both had one lock, or got its token in the wrong order."""

    lock: str
    first: str
    second: str


@dataclass(frozen=True)
class Verdict:
    """The end of the story."""

    published: int
    finished: int
    #: Tasks that never came to an end.
    lost: tuple[str, ...] = ()
    #: Tasks that were running when the worker died and ran again: at-least-once, as promised.
    rerun: tuple[str, ...] = ()
    #: Tasks that ran twice without that excuse.
    doubled: tuple[str, ...] = ()
    overlaps: tuple[Overlap, ...] = ()

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.overlaps)


def executions(events: Iterable[Event]) -> list[Execution]:
    """Put the lines of the ledger together, in order of start.

    Args:
        events: in any order; an end without its start is left out.
    """
    lines = list(events)
    ended = {line.run: line.mono for line in lines if line.event == END}
    runs = [
        Execution(line.task, line.lock, line.node, line.attempt, line.token, line.mono, ended.get(line.run))
        for line in lines
        if line.event == START
    ]
    return sorted(runs, key=lambda run: run.started)


def judge(published: Collection[str], runs: Sequence[Execution], death: Death | None) -> Verdict:
    """Judge a run.

    Args:
        published: the tasks that were accepted.
        runs: from :func:`executions`.
        death: whom it hit and when; None if nobody was hit.
    """
    by_task: defaultdict[str, list[Execution]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    finished = {run.task for run in runs if run.ended is not None}
    again = {task: all(run.cut_off(death) for run in found[:-1]) for task, found in by_task.items() if len(found) > 1}
    return Verdict(
        published=len(published),
        finished=len(finished),
        lost=tuple(sorted(set(published) - finished)),
        rerun=tuple(sorted(task for task, excused in again.items() if excused)),
        doubled=tuple(sorted(task for task, excused in again.items() if not excused)),
        overlaps=tuple(_overlaps(runs, death)),
    )


def first_after(runs: Iterable[Execution], death: Death, tasks: Collection[str]) -> float | None:
    """Seconds from a death until the first of these tasks started on another worker.

    Args:
        runs: from :func:`executions`.
        death: whom it hit and when.
        tasks: for example those whose shards the dead worker had.
    """
    starts = [
        run.started - death.at
        for run in runs
        if run.task in tasks and run.node != death.node and run.started > death.at
    ]
    return min(starts, default=None)


def interrupted(runs: Iterable[Execution], death: Death) -> frozenset[str]:
    """The tasks that were running on the victim when it was hit."""
    return frozenset(
        run.task
        for run in runs
        if run.node == death.node and run.started <= death.at and (run.ended is None or run.ended > death.at)
    )


def _overlaps(runs: Iterable[Execution], death: Death | None) -> list[Overlap]:
    found = []
    latest: dict[str, Execution] = {}
    for run in runs:
        before = latest.get(run.lock)
        if before is not None and (run.started < before.until(death) or run.token <= before.token):
            found.append(Overlap(run.lock, before.task, run.task))
        if before is None or run.until(death) >= before.until(death):
            latest[run.lock] = run
    return found
