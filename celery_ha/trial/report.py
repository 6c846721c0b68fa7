"""What became of it, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from celery_ha.trial.verdict import Verdict
from celery_ha.trial.watch import Failover

#: Names shown of what went wrong; the rest is in the JSON report.
SHOWN = 10


@dataclass(frozen=True)
class Timeline:
    """Seconds after the blow; None: it did not happen."""

    #: The leader fenced the lease.
    noticed: float | None
    #: We saw that everything it held was back in its queues; the first of it may have started by then.
    requeued: float | None
    #: The first task that was running on it, or waiting in one of its shards, started elsewhere.
    first_start: float | None
    #: The first of those that were running on it started again elsewhere.
    first_rerun: float | None
    #: A frozen worker was back under a new lease.
    back: float | None


@dataclass(frozen=True)
class Round:
    """One blow."""

    victim: str
    failover: Failover | None
    timeline: Timeline
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class Report:
    """All there is to tell."""

    server: str
    workers: int
    seed: int
    frozen: bool
    rounds: tuple[Round, ...]
    seconds: float

    @property
    def good(self) -> bool:
        return all(each.verdict.good for each in self.rounds)

    @property
    def takeover(self) -> dict[str, float | None]:
        """Seconds from a blow to the first of the victim's tasks elsewhere, in the middle and at worst."""
        times = [each.timeline.first_start for each in self.rounds if each.timeline.first_start is not None]
        return {"median": median(times) if times else None, "worst": max(times, default=None)}

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        verdicts = [each.verdict for each in self.rounds]
        return {
            **asdict(self),
            "published": sum(each.published for each in verdicts),
            "finished": sum(each.finished for each in verdicts),
            "lost": sum(len(each.lost) for each in verdicts),
            "rerun": sum(len(each.rerun) for each in verdicts),
            "doubled": sum(len(each.doubled) for each in verdicts),
            "overlaps": sum(len(each.overlaps) for each in verdicts),
            "takeover": self.takeover,
            "good": self.good,
        }


def lines(report: Report) -> Iterator[str]:
    """Tell it in lines."""
    for number, each in enumerate(report.rounds, 1):
        if len(report.rounds) > 1:
            yield f"Round {number} of {len(report.rounds)}"
        yield from _round(report, each)
        yield ""
    if len(report.rounds) > 1:
        times = report.takeover
        yield f"Takeover: {_seconds(times['median'])} s in the middle, {_seconds(times['worst'])} s at worst"
    yield "PASSED" if report.good else f"FAILED (seed {report.seed})"


def _round(report: Report, each: Round) -> Iterator[str]:
    timeline, verdict = each.timeline, each.verdict
    blow = "frozen (SIGSTOP)" if report.frozen else "killed (SIGKILL)"
    yield "Timeline, in seconds"
    yield _moment(0.0, f"{each.victim} {blow}")
    reason = each.failover.reason if each.failover else "no failover was recorded"
    yield _moment(timeline.noticed, f"noticed and fenced: {reason}")
    yield _moment(timeline.requeued, _moved(each.failover))
    yield _moment(timeline.first_start, "first of its tasks started elsewhere")
    idle = "" if verdict.lost else "nothing was interrupted"
    yield _moment(timeline.first_rerun, "first interrupted task started again elsewhere", idle)
    if report.frozen:
        yield _moment(timeline.back, "back under a new lease, after SIGCONT")
    yield ""
    yield f"Verdict, from the tasks' own ledger ({verdict.finished} of {verdict.published} tasks finished)"
    yield _count("lost", verdict.lost)
    yield _count("run twice, had been running on it (at-least-once)", verdict.rerun)
    yield _count("run twice, had not been running on it", verdict.doubled)
    yield _count("lock overlaps", [f"{item.lock}: {item.first} and {item.second}" for item in verdict.overlaps])


def _moved(failover: Failover | None) -> str:
    if failover is None or failover.requeued is None:
        return "requeue finished"
    return (
        f"requeue finished: {failover.requeued} messages, {failover.restarted} of them had started; "
        f"{failover.locks} locks settled"
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _moment(seconds: float | None, what: str, otherwise: str = "") -> str:
    return f"  {_seconds(seconds):>6}  {(seconds is None and otherwise) or what}"


def _count(what: str, names: tuple[str, ...] | list[str]) -> str:
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"  {len(names):>6}  {what}" + (f": {some}" if names else "")
