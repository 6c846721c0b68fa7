"""What becomes of a message whose place in a lock's line is not known, and of a mark that is taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from celery_ha.brokers.ledger import Ledger
from celery_ha.config import Config
from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.model import Claim, Ending, Parked, Settlement
from celery_ha.worker.custody import Custody
from celery_ha.worker.stock import Stock

CLAIM = "L.1"


class Line:
    """Answers, or not."""

    def __init__(self, answer: Parked | Exception) -> None:
        self.answer = answer

    def park(self, *_args: Any, **_terms: Any) -> Parked:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def custody_of(ledger: Ledger, broker: Any) -> Custody:
    """What a node that trusts its lease holds."""
    life: Any = SimpleNamespace(keeper=SimpleNamespace(trusted=True), ledger=ledger, fenced=False, refused=lambda: None)
    return Custody(lambda: life, broker, Stock(), nullcontext, Config())


def holding_two_deferred(ledger: Ledger, broker: Any) -> Custody:
    """Two attempts that were marked, and wait after all."""
    ledger.took([Claim(claim, "q", b"{}", started=True) for claim in (CLAIM, "L.2")])
    custody = custody_of(ledger, broker)
    for claim in (CLAIM, "L.2"):
        custody.defer(claim)
    return custody


def parked(answer: Parked | Exception) -> tuple[Custody, Ledger]:
    """What a node holds and owes after a message was to be parked, and that was the answer."""
    ledger = Ledger("L")
    ledger.took([Claim(CLAIM, "q", b"{}", started=True)])
    ledger.run(CLAIM)
    custody = custody_of(ledger, SimpleNamespace())
    custody.parking = Line(answer)  # type: ignore[assignment]
    custody.stock.standing_by.add(CLAIM)
    custody.park(CLAIM, "task", "lock", 1)
    return custody, ledger


@pytest.mark.parametrize("answer", [Parked.DUE, StoreUnavailable("away"), StoreError("refused"), RuntimeError("a bug")])
def test_what_may_not_be_in_line_goes_back_to_its_queue(answer: Parked | Exception) -> None:
    custody, ledger = parked(answer)
    assert [(item.claim, item.ending) for item in ledger.owed()] == [(CLAIM, Ending.RELEASE)]
    assert not custody.stock.standing_by


@pytest.mark.parametrize("answer", [Parked.PARKED, Parked.GONE])
def test_what_is_in_line_or_elsewhere_is_nobodys_here(answer: Parked) -> None:
    custody, ledger = parked(answer)
    assert not ledger.owes
    assert not ledger.holds(CLAIM)
    assert not custody.stock.standing_by


class Record:
    """The broker's record of marks; what it is asked without waiting is carried out when the answer is read."""

    def __init__(self) -> None:
        self.marked: set[str] = set()
        self._question: tuple[Sequence[str], Sequence[Settlement]] = (), ()

    def settle(self, _lease: str, settle: Sequence[Settlement]) -> bool:
        self.marked -= {item.claim for item in settle}
        return True

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        self.settle(lease, settle)
        self.marked.add(claim)
        return True

    def ask(self, lease: str, claims: Sequence[str], settle: Sequence[Settlement]) -> Any:
        self._question = claims, settle
        return self

    def answer(self) -> dict[str, bool]:
        claims, settle = self._question
        return {claim: self.start("L", claim, settle=settle) for claim in claims}


@pytest.mark.parametrize("told", [False, True], ids=["first", "while it is asked for"])
def test_what_was_marked_and_waits_after_all_runs_under_a_mark(told: bool) -> None:
    # Given an attempt that was marked when it was opened, and waits for its turn
    ledger, record = Ledger("L"), Record()
    ledger.took([Claim(CLAIM, "q", b"{}"), Claim("L.2", "q", b"{}")])
    custody = custody_of(ledger, record)
    assert custody.mark(CLAIM)
    ledger.defer(CLAIM)
    # When it is its turn, and its channel tells what is owed in any order with that
    custody.ask([CLAIM, "L.2"])
    if told:
        owed = ledger.owed()
        record.settle("L", owed)
        ledger.confirmed(owed)
    custody.answered()
    assert custody.start(CLAIM)
    assert custody.start("L.2")
    owed = ledger.owed()
    record.settle("L", owed)
    # Then its body runs under a mark (rule 1)
    assert record.marked == {CLAIM, "L.2"}


class Interleaved(Record):
    """While it waits for an answer, another greenlet has its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Callable[[], object]] = []

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        others = [threading.Thread(target=call) for call in self.meanwhile]
        self.meanwhile = []
        for other in others:
            other.start()
        for other in others:
            other.join(0.2)  # it may wait for us, and we wait for nobody
        return super().start(lease, claim, settle=settle)


def test_two_greenlets_that_start_what_was_deferred_both_run_it_under_a_mark() -> None:
    """Each tells all that is owed: the second one told the first one's deferral again, after its start."""
    ledger, record = Ledger("L"), Interleaved()
    custody = holding_two_deferred(ledger, record)
    started = threading.Event()
    record.meanwhile = [lambda: custody.start("L.2") and started.set()]
    assert custody.start(CLAIM)
    assert started.wait(30)
    assert ledger.running() == record.marked == {CLAIM, "L.2"}


def test_deferral_is_not_told_of_what_has_started_meanwhile() -> None:
    ledger = Ledger("L")
    ledger.took([Claim(CLAIM, "q", b"{}", started=True)])
    ledger.defer(CLAIM)
    assert ledger.run(CLAIM)
    assert not ledger.owes


def test_claim_that_was_given_back_while_it_waited_to_be_told_of_is_not_started() -> None:
    """The one who told got no answer, so nothing of what he told may start."""

    class Silent(Interleaved):
        def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
            if self.meanwhile:
                super().start(lease, claim, settle=settle)
                raise StoreUnavailable("no answer")
            return super().start(lease, claim, settle=settle)

    ledger, record = Ledger("L"), Silent()
    custody = holding_two_deferred(ledger, record)
    other: list[bool] = []
    done = threading.Event()
    record.meanwhile = [lambda: (other.append(custody.start("L.2")), done.set())]
    assert not custody.start(CLAIM)
    assert done.wait(30)
    assert other == [False]
    assert "L.2" not in record.marked
    assert {item.ending for item in ledger.owed()} == {Ending.RELEASE}


def test_deferral_that_was_told_and_broke_off_is_one_without_an_answer() -> None:
    ledger = Ledger("L")
    ledger.took([Claim(CLAIM, "q", b"{}", started=True)])
    ledger.defer(CLAIM)
    with pytest.raises(KeyboardInterrupt), ledger.telling():
        raise KeyboardInterrupt
    assert not ledger.run(CLAIM)
    with ledger.telling() as owed:
        assert [item.ending for item in owed] == [Ending.RELEASE]
