"""What becomes of a message whose place in a lock's line is not known."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from celery_ha.brokers.ledger import Ledger
from celery_ha.config import Config
from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.model import Claim, Ending, Parked
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


def parked(answer: Parked | Exception) -> tuple[Custody, Ledger]:
    """What a node holds and owes after a message was to be parked, and that was the answer."""
    ledger = Ledger("L")
    ledger.took([Claim(CLAIM, "q", b"{}", started=True)])
    ledger.run(CLAIM)
    life: Any = SimpleNamespace(keeper=SimpleNamespace(trusted=True), ledger=ledger, fenced=False, refused=lambda: None)
    custody = Custody(lambda: life, SimpleNamespace(), Stock(), nullcontext, Config())  # type: ignore[arg-type]
    custody.parking = Line(answer)  # type: ignore[assignment]
    custody.stock.standing_by.add(CLAIM)
    custody.park(CLAIM, "task", "lock", 1)
    return custody, ledger


@pytest.mark.parametrize("answer", [Parked.DUE, StoreUnavailable("away"), StoreError("refused")])
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
