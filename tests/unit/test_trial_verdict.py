"""What a trial proves from its ledger, and whom it touches."""

from __future__ import annotations

import subprocess
import sys

import pytest

from celery_ha.trial.fleet import Crew, Fleet, NotOurs
from celery_ha.trial.ledger import LedgerReader, LedgerWriter
from celery_ha.trial.report import Report, Round, Timeline, lines
from celery_ha.trial.setting import leave_nothing
from celery_ha.trial.stage import refuse_strangers
from celery_ha.trial.verdict import (
    END,
    START,
    TOLD,
    UNACKED,
    Death,
    Event,
    Execution,
    Overlap,
    Verdict,
    executions,
    first_after,
    interrupted,
    judge,
)
from celery_ha.trial.watch import Member, Sight

pytestmark = pytest.mark.unit

DEATH = Death("w1", at=100.0)


def ran(task, started, ended, *, node="w2", lock=None, token=None, attempt=1):
    return Execution(task, lock or f"lock-of-{task}", node, attempt, token or int(started * 1000), started, ended)


def event(kind, run, mono, task="a"):
    return Event(kind, task, "l", run, 1, 7, "w1", 1, 0.0, mono)


def test_a_task_that_never_ended_is_lost():
    verdict = judge(["a", "b"], [ran("a", 1, 2), ran("b", 1, None)], None)
    assert verdict.lost == ("b",)
    assert not verdict.good


def test_a_task_that_never_started_is_lost():
    assert judge(["a"], [], DEATH).lost == ("a",)


def test_everything_once_is_good():
    verdict = judge(["a", "b"], [ran("a", 1, 2), ran("b", 1, 2)], None)
    assert verdict.good
    assert (verdict.published, verdict.finished) == (2, 2)


@pytest.mark.parametrize(
    ("first", "excused"),
    [
        (ran("a", 99.0, None, node="w1"), True),  # running when its worker died
        (ran("a", 99.0, 100 - UNACKED / 2, node="w1"), True),  # finished, its ack not sent yet
        (ran("a", 99.0, 103.0, node="w1"), True),  # frozen in the body, went on later
        (ran("a", 90.0, 99.0, node="w1"), False),  # finished and acknowledged long before
        (ran("a", 101.0, None, node="w1"), False),  # started by a worker that had been given up
        (ran("a", 99.0, None, node="w2"), False),  # on a worker that nothing happened to
    ],
)
def test_only_a_task_that_was_running_on_the_victim_may_run_twice(first, excused):
    verdict = judge(["a"], [first, ran("a", 104, 105, node="w3")], DEATH)
    assert (verdict.rerun, verdict.doubled) == ((("a",), ()) if excused else ((), ("a",)))
    assert verdict.good is excused


def test_without_a_death_nothing_excuses_a_second_run():
    assert judge(["a"], [ran("a", 1, None), ran("a", 2, 3)], None).doubled == ("a",)


def test_a_third_run_is_not_excused_by_the_first():
    runs = [ran("a", 99, None, node="w1"), ran("a", 101, 102), ran("a", 103, 104)]
    assert judge(["a"], runs, DEATH).doubled == ("a",)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        (ran("a", 1, 3, lock="l"), ran("b", 2, 4, lock="l"), True),
        (ran("a", 1, 3, lock="l"), ran("b", 3, 4, lock="l"), False),
        (ran("a", 1, 3, lock="l"), ran("b", 2, 4, lock="m"), False),
        (ran("a", 1, 2, lock="l", token=9), ran("b", 3, 4, lock="l", token=9), True),  # the token did not grow
        (ran("a", 1, None, lock="l"), ran("b", 9, 10, lock="l"), True),  # still running for all we know
        (ran("a", 99, None, lock="l", node="w1"), ran("b", 101, 102, lock="l"), False),  # cut off
        (ran("a", 99, None, lock="l", node="w1"), ran("b", 99.5, 102, lock="l"), True),  # before it was cut off
        (ran("a", 99, 103, lock="l", node="w1"), ran("b", 101, 102, lock="l"), True),  # woke up and went on
    ],
)
def test_two_in_one_lock_are_an_overlap(first, second, overlap):
    verdict = judge(["a", "b"], [first, second], DEATH)
    assert verdict.overlaps == ((Overlap("l", "a", "b"),) if overlap else ())


def test_a_long_holder_is_not_hidden_by_a_short_one():
    runs = [ran("a", 1, 10, lock="l"), ran("b", 2, 3, lock="l"), ran("c", 4, 5, lock="l")]
    assert len(judge(["a", "b", "c"], runs, None).overlaps) == 2


def test_the_first_start_elsewhere_counts_from_the_blow():
    runs = [
        ran("a", 99, None, node="w1"),
        ran("b", 100.2, 101),  # none of its tasks
        ran("c", 100.7, 101),
        ran("a", 101.5, 102),
        ran("c", 100.1, 101, node="w1"),  # not elsewhere
    ]
    assert first_after(runs, DEATH, {"a", "c"}) == pytest.approx(0.7)
    assert first_after(runs, DEATH, interrupted(runs, DEATH)) == pytest.approx(1.5)
    assert first_after(runs, DEATH, {"d"}) is None


def test_what_ended_before_the_blow_was_not_interrupted():
    runs = [
        ran("a", 98, 99, node="w1"),
        ran("b", 99, None, node="w1"),
        ran("c", 99, 102, node="w1"),
        ran("d", 99, None),
    ]
    assert interrupted(runs, DEATH) == {"b", "c"}


def test_executions_are_put_together_by_their_run_in_order_of_start():
    lines = [event(END, "r1", 3.0), event(START, "r2", 2.0, "b"), event(START, "r1", 1.0), event(TOLD, "r2", 4.0, "b")]
    assert [(run.task, run.started, run.ended) for run in executions(lines)] == [("a", 1.0, 3.0), ("b", 2.0, None)]


def test_a_line_cut_short_by_a_kill_is_not_read(tmp_path):
    writer = LedgerWriter(tmp_path, node="w1", task="a", lock="l", token=5, attempt=2)
    writer.write(START)
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"event": "en')
    reader = LedgerReader(tmp_path)
    reader.refresh()
    reader.refresh()
    assert [(line.event, line.task, line.token, line.attempt) for line in reader.events] == [(START, "a", 5, 2)]
    assert reader.finished == {}


def test_the_reader_reads_on_where_it_stopped(tmp_path):
    writer = LedgerWriter(tmp_path, node="w1", task="a", lock="l", token=5, attempt=1)
    reader = LedgerReader(tmp_path)
    writer.write(START)
    reader.refresh()
    writer.write(END)
    reader.refresh()
    assert [line.event for line in reader.events] == [START, END]
    assert reader.finished == {"a": "w1"}


def crew(*names):
    return Crew("nobody", "q", names, 1)


def test_worker_that_was_not_started_here_is_not_touched(tmp_path):
    fleet = Fleet(crew("w1@x"), tmp_path)
    for touch in (fleet.kill, fleet.freeze, fleet.thaw):
        with pytest.raises(NotOurs, match="w1@x"):
            touch("w1@x")


def test_number_of_a_worker_that_was_reaped_is_nobodys(tmp_path):
    fleet = Fleet(crew("w1@x"), tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    fleet._processes["w1@x"] = gone
    with pytest.raises(NotOurs):
        fleet.kill("w1@x")


def test_others_that_take_part_are_refused():
    member = Member("lease", frozenset(), 0, leads=False)
    refuse_strangers(Sight({"w1@x": member}, 0), ("w1@x", "w2@x"))
    with pytest.raises(NotOurs, match="w3@y would take part"):
        refuse_strangers(Sight({"w1@x": member, "w3@y": member}, 0), ("w1@x",))


def test_report_adds_the_rounds_up():
    def played(first_start, **verdict):
        return Round("w1", None, Timeline(None, None, first_start, None, None), Verdict(10, 9, **verdict), 1.0)

    report = Report("s", 3, 7, False, (played(1.0), played(3.0, lost=("a",)), played(None)), 9.0)
    told = report.as_dict()
    assert (told["published"], told["finished"], told["lost"], told["good"]) == (30, 27, 1, False)
    assert told["takeover"] == {"median": 2.0, "worst": 3.0}
    text = "\n".join(lines(report))
    assert "Round 2 of 3" in text
    assert "1  lost: a" in text
    assert "2.00 s in the middle, 3.00 s at worst" in text
    assert text.endswith("FAILED (seed 7)")


class Stain:
    """What is left on one server, which may be out of reach."""

    def __init__(self, left=(), error=None):
        self._left, self._error, self.closed = left, error, False

    def wipe(self):
        if self._error:
            raise self._error

    def left(self):
        return self._left

    def close(self):
        self.closed = True


def test_what_cannot_be_cleaned_is_named_and_keeps_nothing_else_from_being_cleaned():
    stains = [Stain(error=ConnectionError("gone")), Stain(left=["key"]), Stain()]
    assert leave_nothing(stains) == ["what cannot be asked for (gone)", "key"]
    assert all(stain.closed for stain in stains)
