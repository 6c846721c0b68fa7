"""Messages in nobody's hands under a lease that lives."""

from __future__ import annotations

import time

import pytest

from celery_ha.brokers.ledger import Ledger
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim, Ending
from celery_ha.worker.stock import EVERY, SOON, Stock


def test_message_whose_request_is_gone_goes_back_with_its_credit() -> None:
    # Given a message that was let through, of which Celery knows no request any more
    ledger, stock = Ledger("L"), Stock()
    ledger.took([Claim("L.1", "q", b"{}"), Claim("L.2", "q", b"{}")])
    given: list[str] = []
    stock.credit, stock.live = given.append, lambda: frozenset({"L.2"})
    for claim in ("L.1", "L.2"):
        ledger.run(claim)
    # When that is seen twice: once it may be on its way
    stock.take(ledger, lambda: {"L.1": True, "L.2": True})
    assert not ledger.owes
    stock.take(ledger, lambda: {"L.1": True, "L.2": True})
    # Then it goes back, and the worker may have another one for it
    assert [(item.claim, item.ending) for item in ledger.owed()] == [("L.1", Ending.RELEASE)]
    assert given == ["L.1"]


def test_look_that_nobody_answered_is_taken_again_soon() -> None:
    stock = Stock()

    def away() -> dict[str, bool]:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        stock.take(Ledger("L"), away)
    assert stock.due(time.monotonic() + SOON)
    stock.take(Ledger("L"), dict[str, bool])
    assert not stock.due(time.monotonic() + SOON)
    assert stock.due(time.monotonic() + EVERY)
