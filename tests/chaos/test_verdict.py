"""The verdict itself: what it calls lost, run twice, and an overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

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
