"""The verdict itself: what it calls lost, run twice, and an overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.mix import Order, Published
from tests.chaos.verdict import Outcome, doubled, judge_ledger, unconfirmed, worn_out
from tests.support.ledger import Harm, Ledger


@pytest.fixture
def ledger(tmp_path: Path):
    """Write lines of ``event key claim time node [lock token]``; the process id plays no part."""

    def write(*lines: str) -> Ledger:
        path = tmp_path / "ledger"
        rows = [line.split() for line in lines]
        path.write_text("".join(" ".join([*row[:3], "1", *row[3:]]) + "\n" for row in rows))
        return Ledger(path)

    return write


def test_key_that_started_and_never_ended_is_lost(ledger):
    told = ledger("start a l.1 10 w1", "start b l.2 10 w1", "end b l.2 11 w1")
    assert told.missing(["a", "b", "c"]) == {"a", "c"}


def test_second_run_is_a_double_unless_the_first_was_cut_off(ledger):
    lines = ("start a l.1 10 w1", "start a m.2 13 w2", "end a m.2 14 w2")
    assert set(ledger(*lines).doubled(["a"])) == {"a"}
    assert ledger(*lines).doubled(["a"], [Harm("w1", 12)]) == {}


@pytest.mark.parametrize(
    ("harm", "why"),
    [(Harm("w2", 12), "another node"), (Harm("w1", 9), "before it started"), (Harm("w1", 15), "long after it ended")],
)
def test_blow_that_did_not_cut_the_first_run_off_excuses_nothing(ledger, harm: Harm, why: str):
    told = ledger("start a l.1 10 w1", "end a l.1 11 w1", "start a m.2 16 w3", "end a m.2 17 w3")
    assert set(told.doubled(["a"], [harm])) == {"a"}, why


def test_run_that_ended_just_before_the_blow_may_not_have_been_acknowledged(ledger):
    told = ledger("start a l.1 10 w1", "end a l.1 11 w1", "start a m.2 13 w2", "end a m.2 14 w2")
    assert told.doubled(["a"], [Harm("w1", 11.1)]) == {}


def test_one_blow_excuses_one_repetition(ledger):
    told = ledger("start a l.1 10 w1", "start a m.2 13 w2", "end a m.2 14 w2", "start a m.3 15 w2", "end a m.3 16 w2")
    assert set(told.doubled(["a"], [Harm("w1", 12)])) == {"a"}


def test_two_runs_under_one_lock_at_once_are_an_overlap(ledger):
    told = ledger(
        "start a l.1 10 w1 acc 5", "start b l.2 11 w1 acc 6", "end a l.1 12 w1 acc 5", "end b l.2 13 w1 acc 6"
    )
    assert [(one.first.key, one.second.key) for one in told.overlaps()] == [("a", "b")]


def test_token_that_does_not_grow_is_an_overlap(ledger):
    told = ledger(
        "start a l.1 10 w1 acc 6", "end a l.1 11 w1 acc 6", "start b l.2 12 w1 acc 6", "end b l.2 13 w1 acc 6"
    )
    assert len(told.overlaps()) == 1


def test_run_that_was_cut_off_holds_its_lock_no_longer(ledger):
    told = ledger("start a l.1 10 w1 acc 5", "start b m.2 13 w2 acc 6", "end b m.2 14 w2 acc 6")
    assert len(told.overlaps()) == 1
    assert told.overlaps([Harm("w1", 12)]) == []


def test_kill_of_one_child_excuses_what_ran_in_it_alone(ledger):
    told = ledger("start a l.1 10 w1", "start a m.2 13 w2", "end a m.2 14 w2")
    assert told.doubled(["a"], [Harm("w1", 12, pid=1)]) == {}
    assert set(told.doubled(["a"], [Harm("w1", 12, pid=2)])) == {"a"}


def test_what_ended_while_the_server_was_away_was_not_acknowledged_when_its_worker_was_killed(ledger):
    told = ledger("start a l.1 10 w1", "end a l.1 11 w1", "start a m.2 20 w2", "end a m.2 21 w2")
    kill = Harm("w1", 18)
    assert set(told.doubled(["a"], unconfirmed([kill], [(30, 31)]))) == {"a"}
    assert set(told.doubled(["a"], unconfirmed([kill], [(1, 4)]))) == {"a"}
    assert told.doubled(["a"], unconfirmed([kill], [(11.5, 16)])) == {}


def test_attempt_that_ran_again_may_publish_its_retry_again(ledger):
    retried = published("retried", "r")
    lines = ["start r/0 l.1 10 w1", "start r/0 m.2 13 w2", "end r/0 m.2 14 w2"]
    lines += ["start r/1 l.3 15 w1", "end r/1 l.3 16 w1", "start r/1 l.4 17 w1", "end r/1 l.4 18 w1"]
    assert doubled(ledger(*lines).by_key(), retried, [Harm("w1", 12)]) == []
    assert doubled(ledger(*lines[:1], *lines[3:]).by_key(), retried, []) == ["r/1"]


def test_chord_whose_header_ended_and_whose_body_never_did_hangs(ledger):
    parts = [f"{event} c/{at} l.{at} 1{at} w1" for at in range(3) for event in ("start", "end")]
    assert judged(ledger(*parts), published("chord", "c")).broken.hung_chords == ["c"]
    whole = ("start c/body l.9 20 w1 c/0+c/1+c/2", "end c/body l.9 21 w1 c/0+c/1+c/2")
    assert judged(ledger(*parts, *whole), published("chord", "c")).broken.names == []
    torn = ("start c/body l.9 20 w1 c/0+c/1", "end c/body l.9 21 w1 c/0+c/1")
    assert judged(ledger(*parts, *torn), published("chord", "c")).broken.torn_chords == ["c"]


@pytest.mark.parametrize(
    ("kind", "due", "promise"),
    [("eta", 12, "started_early"), ("expiring", 7, "started_expired"), ("revoked", 9, "started_revoked")],
)
def test_start_that_came_too_early_too_late_or_at_all_is_named(ledger, kind: str, due: float, promise: str):
    told = ledger("start a l.1 10 w1", "end a l.1 11 w1")
    assert judged(told, published(kind, "a", due=due)).broken.names == [promise]


def test_poison_that_started_too_often_is_named(ledger):
    lines = [f"start p l.{at} 1{at} w1" for at in range(3)]
    assert judged(ledger(*lines), published("poison", "p")).broken.poison_not_stopped == ["p"]
    assert judged(ledger(*lines[:2]), published("poison", "p")).broken.names == []


def test_key_that_was_cut_off_as_often_as_it_may_start_is_worn_out(ledger):
    told = ledger("start a l.1 10 w1", "start b l.2 10 w1", "start a m.3 13 w2", "end a m.3 14 w2", "start b m.4 13 w2")
    harms = [Harm("w1", 11), Harm("w2", 14.1)]
    assert worn_out(told.by_key(), harms, 2) == {"a", "b"}
    assert worn_out(told.by_key(), harms, 3) == set()
    assert worn_out(told.by_key(), harms[:1], 2) == set()


def published(kind: str, key: str, due: float = 0.0) -> Published:
    what = Order(kind, key, 0.0, 0.0, "account1", 0, "exit")
    return Published([what], due={key: due}, revoked={key} if kind == "revoked" else set())


def judged(told: Ledger, done: Published) -> Outcome:
    outcome = Outcome(1)
    judge_ledger(outcome, told, done, [], longest_stall=0.0, max_deliveries=2)
    return outcome
