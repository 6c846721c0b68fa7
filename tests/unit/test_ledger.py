"""What a lease holds and owes."""

from __future__ import annotations

import json

from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Claim, Ending, Settlement

PAYLOAD = json.dumps({"headers": {"id": "t"}, "properties": {"delivery_info": {}}, "body": ""}).encode()


def ledger_with(*claims: Claim) -> Ledger:
    ledger = Ledger("L")
    ledger.took(claims)
    return ledger


def claim(number: int, *, started: bool = False) -> Claim:
    return Claim(f"L.{number}", "orders.1", PAYLOAD, started)


def test_ending_is_owed_until_the_broker_confirms_it() -> None:
    ledger = ledger_with(claim(1))
    ledger.end("L.1", Ending.ACK)
    owed = ledger.owed()
    assert [item.ending for item in owed] == [Ending.ACK]
    assert ledger.owed() == owed  # asked again: the reply may have been lost
    ledger.confirmed(owed)
    assert not ledger.owes


def test_second_ending_of_a_claim_changes_nothing() -> None:
    ledger = ledger_with(claim(1))
    assert ledger.end("L.1", Ending.ACK)
    assert not ledger.end("L.1", Ending.RELEASE)
    assert ledger.owed()[0].ending is Ending.ACK


def test_claims_that_go_back_go_newest_first_so_that_the_oldest_ends_in_front() -> None:
    ledger = ledger_with(claim(9), claim(10), claim(11))
    for number in (9, 10, 11):
        ledger.end(f"L.{number}", Ending.RELEASE)
    assert [item.claim for item in ledger.owed()] == ["L.11", "L.10", "L.9"]


def test_started_attempt_that_goes_back_has_its_delivery_counted() -> None:
    ledger = ledger_with(claim(1, started=True))
    ledger.end("L.1", Ending.RELEASE)
    payload = ledger.owed()[0].payload
    assert payload is not None
    assert json.loads(payload)["headers"]["ha_deliveries"] == 1


def test_bystander_that_goes_back_is_not_counted() -> None:
    ledger = ledger_with(claim(1, started=True))
    ledger.defer("L.1")
    ledger.end("L.1", Ending.RELEASE)
    assert ledger.owed()[0].payload is None


def test_confirmation_of_an_older_settlement_does_not_drop_a_newer_one() -> None:
    ledger = ledger_with(claim(1, started=True))
    ledger.defer("L.1")
    deferred = ledger.owed()
    ledger.end("L.1", Ending.ACK)
    ledger.confirmed(deferred)
    assert [item.ending for item in ledger.owed()] == [Ending.ACK]


def test_claim_that_left_is_not_let_through_the_gate() -> None:
    ledger = ledger_with(claim(1))
    ledger.end("L.1", Ending.RELEASE)
    assert not ledger.run("L.1")


def test_only_what_the_gate_has_not_let_through_is_idle() -> None:
    ledger = ledger_with(claim(1), claim(2), claim(3))
    ledger.run("L.2")
    assert ledger.idle() == ("L.3", "L.1")


def test_claim_whose_delivery_was_lost_is_found_and_given_back() -> None:
    ledger = ledger_with(claim(1))
    ledger.end("L.1", Ending.ACK)  # owed, so still in flight on the broker: ours, not a stranger
    assert ledger.strangers(["L.1", "L.2"]) == ("L.2",)
    ledger.adopt(["L.2"])
    assert Settlement("L.2", Ending.RELEASE) in ledger.owed()


def test_a_look_at_what_came_since_the_last_misses_nothing() -> None:
    ledger = ledger_with(*(claim(number, started=True) for number in range(4)))
    for number in (0, 1):
        ledger.end(f"L.{number}", Ending.ACK)
    ledger.defer("L.2")
    first, looked = ledger.since(0)
    assert {item.claim for item in first} == {"L.0", "L.1", "L.2"}
    # When an old one is confirmed, and the deferred one comes to an end before that is
    ledger.confirmed([item for item in first if item.claim == "L.0"])
    ledger.end("L.2", Ending.ACK)
    ledger.end("L.3", Ending.DEAD)
    latest, looked = ledger.since(looked)
    assert [(item.claim, item.ending) for item in latest] == [("L.3", Ending.DEAD), ("L.2", Ending.ACK)]
    assert ledger.since(looked) == ((), looked)
    # Nor does who counted under another lease break anything
    assert ledger.since(looked + 1) == ((), looked)


def test_attempt_that_may_be_unmarked_at_any_later_time_never_starts() -> None:
    # Given a marked attempt that waits after all, and one that has come to its end
    ledger = ledger_with(claim(1, started=True), claim(2, started=True))
    ledger.defer("L.1")
    ledger.end("L.2", Ending.ACK)
    # When the broker is told and does not answer
    ledger.unanswered(ledger.owed())
    # Then the first goes back, uncounted, and the end of the other is told again
    assert not ledger.run("L.1")
    owed = {item.claim: item for item in ledger.owed()}
    assert (owed["L.1"].ending, owed["L.1"].payload) == (Ending.RELEASE, None)
    assert owed["L.2"].ending is Ending.ACK


def test_deferral_that_was_answered_meanwhile_stays() -> None:
    ledger = ledger_with(claim(1, started=True))
    ledger.defer("L.1")
    sent = ledger.owed()
    ledger.confirmed(sent)
    ledger.unanswered(sent)
    assert ledger.run("L.1")
