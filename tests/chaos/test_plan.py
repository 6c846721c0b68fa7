"""A seed says everything that is going to happen."""

from __future__ import annotations

import pytest

from tests.chaos.mix import SHARES, order
from tests.chaos.plan import DECK, Plan, blows


def test_the_same_seed_deals_the_same_blows_and_publishes_the_same_tasks():
    assert blows(Plan(seed=7)) == blows(Plan(seed=7))
    assert [order(7, number) for number in range(50)] == [order(7, number) for number in range(50)]


def test_another_seed_deals_others():
    assert blows(Plan(seed=7)) != blows(Plan(seed=8))


def test_a_longer_storm_begins_like_a_shorter_one():
    short, long = blows(Plan(minutes=1)), blows(Plan(minutes=2))
    assert long[: len(short)] == short


def test_every_kind_comes_up_as_soon_as_there_are_blows_enough():
    cards = sum(DECK.values())
    assert {blow.kind for blow in blows(Plan(minutes=5))[:cards]} == set(DECK)
    assert {order(1, number).kind for number in range(1_000)} == set(SHARES)


def test_kinds_that_were_not_asked_for_stay_in_the_box():
    assert {blow.kind for blow in blows(Plan(kinds=("stall", "drain")))} == {"stall", "drain"}
    with pytest.raises(ValueError, match="there are kill"):
        blows(Plan(kinds=("hail",)))
