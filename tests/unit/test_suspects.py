"""Suspects are opened alone, and counted before they are opened (rule 15)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.suspects import Suspects
from celery_ha.model import Claim, Ending


@dataclass
class Keeping:
    ledger: Ledger
    max_deliveries: int = 3
    condemned: list[Claim] = field(default_factory=list)
    asking: bool = False

    def mark(self, claim: str) -> bool:
        return self.ledger.mark(claim)

    def condemn(self, claim: Claim) -> None:
        self.condemned.append(claim)


class Node:
    batch_limit = 10

    def __init__(self) -> None:
        self.ledger = Ledger("L")
        self.claims = Keeping(self.ledger)

    def claim(self, number: int, **headers: int) -> Claim:
        payload = json.dumps({"headers": {"id": str(number), **headers}, "properties": {}}).encode()
        made = Claim(f"L.{number}", "q", payload)
        self.ledger.took([made])
        return made


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def opened() -> list[Claim]:
    return []


@pytest.fixture
def suspects(opened: list[Claim]) -> Suspects:
    return Suspects(opened.append)


def test_messages_that_killed_nobody_are_no_suspects(node: Node, suspects: Suspects) -> None:
    assert not suspects.take(node, node.claim(1))
    assert not suspects.take(node, node.claim(2, ha_unstarted=2, ha_deliveries=2))
    assert not suspects


def test_suspect_is_not_opened_while_another_task_runs(node: Node, suspects: Suspects, opened: list[Claim]) -> None:
    other, suspect = node.claim(1), node.claim(2, ha_unstarted=3)
    node.ledger.run(other.id)
    assert suspects.take(node, suspect)
    suspects.open_next(node)
    assert (opened, bool(suspects)) == ([], True)
    node.ledger.end(other.id, Ending.ACK)
    suspects.open_next(node)
    assert (opened, bool(suspects)) == ([suspect], False)


def test_suspect_is_not_opened_while_others_may_be_marked(node: Node, suspects: Suspects, opened: list[Claim]) -> None:
    """They would count, were they to die with it."""
    suspects.take(node, node.claim(1, ha_unstarted=3))
    node.claims.asking = True
    suspects.open_next(node)
    assert not opened
    # When the answer is there
    node.claims.asking = False
    suspects.open_next(node)
    assert [claim.id for claim in opened] == ["L.1"]


def test_suspect_is_marked_started_before_it_is_opened(node: Node) -> None:
    marked: list[bool] = []
    suspects = Suspects(lambda claim: marked.append(node.ledger.started(claim.id)))
    suspects.take(node, node.claim(1, ha_unstarted=3))
    suspects.open_next(node)
    assert marked == [True]


def test_suspect_that_waits_for_its_time_once_opened_does_not_count_as_started(node: Node, suspects: Suspects) -> None:
    claim = node.claim(1, ha_unstarted=5)
    suspects.take(node, claim)
    suspects.open_next(node)
    assert not node.ledger.started(claim.id)


def test_suspect_that_was_given_back_meanwhile_is_not_opened(
    node: Node, suspects: Suspects, opened: list[Claim]
) -> None:
    claim = node.claim(1, ha_unstarted=3)
    suspects.take(node, claim)
    node.ledger.end(claim.id, Ending.RELEASE)
    suspects.open_next(node)
    assert (opened, bool(suspects)) == ([], False)


def test_suspect_that_had_all_its_attempts_is_condemned_unopened(
    node: Node, suspects: Suspects, opened: list[Claim]
) -> None:
    claim = node.claim(1, ha_unstarted=3, ha_deliveries=3)
    assert suspects.take(node, claim)
    suspects.open_next(node)
    assert (node.claims.condemned, opened) == ([claim], [])
