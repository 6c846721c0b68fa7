"""The rings of a whole fleet, and what is written down of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_ha.keys import shard_names
from celery_ha.model import Node, Rings
from celery_ha.rings import following, pack, ring_of, unpack
from celery_ha.worker.shards import owned_shards, standby_shards

QUEUES = ("orders", "mails")


def node(at: int, counts: Mapping[str, int], weight: int = 1) -> Node:
    return Node(f"l{at}", f"w{at}@host", weight, tuple(counts), opened=at, shards=tuple(counts.items()))


def drawn(dice: random.Random, at: int) -> Node:
    """A node that consumes one queue or both, and knows of some number of shards."""
    queues = dice.sample(QUEUES, dice.randint(1, 2))
    return node(at, {queue: dice.choice((12, 12, 16)) for queue in queues}, dice.choice((0, 1, 1, 2, 3)))


@given(st.integers(0, 1 << 32), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_the_members_alone_decide_whether_the_rings_were_written_down_yet_or_not(seed: int, size: int) -> None:
    """Else a shard would have two owners, or none, for as long as no other member comes or goes."""
    dice = random.Random(seed)
    fleet = [drawn(dice, at) for at in range(size)]
    last: Rings = {}
    for at in range(size, size + 15):
        # Some of the changes come before the leader has got round to writing.
        written = following(fleet, last)
        for count in (12, 16, 20):
            for queue in QUEUES:
                assert ring_of(queue, count, fleet, last) == ring_of(queue, count, fleet, written)
        last = written if dice.random() < 0.7 else last
        fleet = [*dice.sample(fleet, len(fleet) - 1), drawn(dice, at)]


def test_a_queue_is_divided_among_those_that_consume_it() -> None:
    fleet = [node(0, {"orders": 12}), node(1, {"orders": 12, "mails": 4}), node(2, {"mails": 4}, weight=3)]
    rings = following(fleet, {})
    assert {queue: sorted(set(owners)) for queue, owners in rings.items()} == {
        "orders": ["w0@host", "w1@host"],
        "mails": ["w1@host", "w2@host"],
    }
    assert owned_shards("w2@host", {"mails": 4}, fleet, rings) == {
        shard for shard, owner in zip(shard_names("mails", 4), rings["mails"], strict=True) if owner == "w2@host"
    }


def test_a_node_that_comes_back_under_its_name_before_it_was_missed_moves_nothing() -> None:
    fleet = [node(at, {"orders": 12}) for at in range(3)]
    rings = following(fleet, {})
    assert following([*fleet, replace(fleet[0], lease="new", opened=9.0)], rings) == rings


def test_who_consumes_a_queue_and_does_not_know_it_as_sharded_owns_nothing_of_it() -> None:
    """While a queue becomes sharded: what is published to a shard must have an owner before the last one is replaced."""
    old = [Node(f"o{at}", f"o{at}@host", 4, ("orders",), opened=float(at)) for at in range(3)]
    new = node(9, {"orders": 64})
    assert owned_shards(new.name, {"orders": 64}, [*old, new]) == {f"orders.{at}" for at in range(64)}
    assert following([*old, new], {})["orders"] == (new.name,) * 64
    assert all(owned_shards(each.name, {"orders": 64}, [*old, new]) == frozenset() for each in old)


def test_what_nobody_can_take_for_a_moment_is_remembered() -> None:
    fleet = [node(at, {"orders": 12}) for at in range(2)]
    rings = following(fleet, {})
    assert following([replace(each, weight=0) for each in fleet], rings) == rings
    assert following([node(0, {"mails": 4})], rings).keys() == {"mails"}


def test_fewer_shards_than_there_were_are_divided_evenly() -> None:
    """A broker that lost its memory has forgotten how many there ever were."""
    rings = following([node(at, {"orders": 64}) for at in range(4)], {})
    fleet = [node(at, {"orders": 8}) for at in range(4)]
    assert {len(owned_shards(each.name, {"orders": 8}, fleet, rings)) for each in fleet} == {2}
    assert len(following(fleet, rings)["orders"]) == 8


def test_who_stands_behind_an_owner_is_who_owns_when_that_is_gone() -> None:
    fleet = [node(at, {"orders": 24}, weight=at + 1) for at in range(4)]
    # Given members that came and went
    last = following([*fleet, node(9, {"orders": 24})], following(fleet[1:], {}))
    behind = standby_shards("w1@host", {"orders": 24}, fleet, last)
    # When one of them goes, its ring written down before
    rest, last = fleet[:3], following(fleet, last)
    inherited = {shard for shard, owner in behind.items() if owner == "w3@host"}
    before = owned_shards("w1@host", {"orders": 24}, fleet, last)
    assert inherited
    assert owned_shards("w1@host", {"orders": 24}, rest, last) == before | inherited


def test_rings_are_read_back_as_they_were_written() -> None:
    rings = following([node(at, {"orders": 12, "mails": 1}) for at in range(3)], {})
    assert unpack(pack(rings)) == rings
    with pytest.raises(IndexError):
        unpack({"nodes": ["w0@host"], "rings": {"orders": [0, 1]}})
