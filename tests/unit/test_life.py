"""What a node takes from each look."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Node, Rings
from celery_ha.worker.life import Life
from celery_ha.worker.page import TrustPage


class Observer:
    """Sees what it is told to."""

    def __init__(self) -> None:
        self.look: tuple[tuple[Node, ...], Rings] = ((), {})

    def step(self, _suspected: object) -> Any:
        members, rings = self.look
        return SimpleNamespace(look=SimpleNamespace(rings=rings), members=members, again_in=0.1, failure=None)


def test_members_and_rings_that_were_not_read_together_are_followed_once_they_fit() -> None:
    observer, keeper = Observer(), SimpleNamespace(lease="L")
    changes: list[object] = []
    life: Life = Life(
        keeper,  # type: ignore[arg-type]
        observer,  # type: ignore[arg-type]
        Ledger("L"),
        TrustPage(),
        wait=lambda _seconds: False,
        suspected=frozenset,
        on_observed=lambda _observed: None,
        on_change=lambda: changes.append(life.fleet),
        teller=SimpleNamespace(),  # type: ignore[arg-type]
        on_told=lambda _life: None,
    )
    new = (Node("L", "a@host"), Node("M", "b@host"))
    # Given the members after a change, with rings that were read before the last ones were written down
    old: Rings = {"q": ("a@host", "c@host")}
    observer.look = new, old
    life._observe_once()
    # When the next look has those, and the same members
    last: Rings = {"q": ("a@host", "b@host")}
    observer.look = new, last
    life._observe_once()
    life._observe_once()
    # Then they are followed, once
    assert changes == [(new, old), (new, last)]
