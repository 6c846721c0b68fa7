"""The end of the demo for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from celery_ha.demo.verdict import Verdict
from celery_ha.demo.watch import Failover

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
class Report:
    """All there is to tell."""

    server: str
    workers: int
    seed: int
    victim: str
    frozen: bool
    failover: Failover | None
    timeline: Timeline
    verdict: Verdict
    seconds: float

    @property
    def good(self) -> bool:
        return self.verdict.good

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "good": self.good}


def lines(report: Report) -> Iterator[str]:
    """Tell it in lines."""
    timeline, verdict = report.timeline, report.verdict
    blow = "frozen (SIGSTOP)" if report.frozen else "killed (SIGKILL)"
    yield "Timeline, in seconds"
    yield _moment(0.0, f"{report.victim} {blow}")
    reason = report.failover.reason if report.failover else "no failover was recorded"
    yield _moment(timeline.noticed, f"noticed and fenced: {reason}")
    yield _moment(timeline.requeued, _moved(report.failover))
    yield _moment(timeline.first_start, "first of its tasks started elsewhere")
    yield _moment(timeline.first_rerun, "first interrupted task started again elsewhere", "nothing was interrupted")
    if report.frozen:
        yield _moment(timeline.back, "back under a new lease, after SIGCONT")
    yield ""
    yield f"Verdict, from the tasks' own ledger ({verdict.finished} of {verdict.published} tasks finished)"
    yield _count("lost", verdict.lost)
    yield _count("run twice, had been running on it (at-least-once)", verdict.rerun)
    yield _count("run twice, had not been running on it", verdict.doubled)
    yield _count("lock overlaps", [f"{item.lock}: {item.first} and {item.second}" for item in verdict.overlaps])
    yield ""
    yield "PASSED" if report.good else f"FAILED (seed {report.seed})"


def _moved(failover: Failover | None) -> str:
    if failover is None:
        return "requeue finished"
    return (
        f"requeue finished: {failover.requeued} messages, {failover.restarted} of them had started; "
        f"{failover.locks} locks settled"
    )


def _moment(seconds: float | None, what: str, otherwise: str = "") -> str:
    return f"  {'never' if seconds is None else f'{seconds:.2f}':>6}  {(seconds is None and otherwise) or what}"


def _count(what: str, names: tuple[str, ...] | list[str]) -> str:
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"  {len(names):>6}  {what}" + (f": {some}" if names else "")
