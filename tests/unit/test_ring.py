"""Who owns which shard, for any members."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from celery_ha.keys import shard_names
from celery_ha.ring import Member, Ring, _rooms, assign

#: Drawn alike in each run: these bounds hold for almost all members, and a test must not fail by chance.
seeded = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 1 << 32)


def fleet(seed: int, size: int, weights: Sequence[int] = (1,)) -> list[Member]:
    dice = random.Random(seed)
    return [Member(f"w{n}@{dice.getrandbits(32):08x}", dice.choice(weights)) for n in range(size)]


def digest(owners: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(owners)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Change:
    """The last of some members leaves; backwards, it joins."""

    moved: int
    #: What the last one owned: no way to go or come moves fewer.
    least: int

    @property
    def ratio(self) -> float:
        return self.moved / max(1, self.least)


def last_one_leaves(shards: Sequence[str], members: Sequence[Member]) -> Change:
    there, gone = assign(shards, members), assign(shards, members[:-1])
    return Change(sum(there[s] != gone[s] for s in shards), list(there.values()).count(members[-1].name))


# What is always so.


def test_without_members_nobody_owns_anything() -> None:
    assert assign(shard_names("orders", 4), []) == {}
    assert Ring.of(shard_names("orders", 4), []).owner("orders.0") is None


def test_without_shards_there_is_nothing_to_own() -> None:
    assert assign((), fleet(1, 3)) == {}


def test_a_member_alone_owns_everything() -> None:
    shards = shard_names("orders", 64)
    assert assign(shards, [Member("w1", 3)]) == dict.fromkeys(shards, "w1")


@given(seeds, st.integers(1, 40), st.integers(1, 100), st.lists(st.integers(1, 16), min_size=1, max_size=4))
@settings(deadline=None)
def test_every_shard_has_one_owner_among_the_members(seed: int, size: int, count: int, weights: list[int]) -> None:
    members = fleet(seed, size, weights)
    owners = assign(shard_names("orders", count), members)
    assert tuple(owners) == shard_names("orders", count)
    assert set(owners.values()) <= {member.name for member in members}


@given(seeds, st.integers(2, 30))
@settings(deadline=None)
def test_the_order_of_the_members_changes_nothing(seed: int, size: int) -> None:
    members = fleet(seed, size, (1, 4))
    shuffled = random.Random(seed).sample(members, size)
    assert assign(shard_names("orders", 8 * size), shuffled) == assign(shard_names("orders", 8 * size), members)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_owners_do_not_depend_on_the_hash_seed_of_the_process(hash_seed: str) -> None:
    code = (
        "import json; from celery_ha.keys import shard_names; from celery_ha.ring import Member, assign;"
        "members = {Member(f'w{n}', n + 1) for n in range(9)};"  # a set: in another order with each seed
        "print(json.dumps(dict(assign(shard_names('orders', 90), members))))"
    )
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True)
    members = [Member(f"w{n}", n + 1) for n in range(9)]
    assert json.loads(out.stdout) == assign(shard_names("orders", 90), members)


@pytest.mark.parametrize(
    ("count", "size", "weights", "known"),
    [
        (64, 3, (1,), "b76a949dcc32f6d0"),
        (64, 8, (1, 2, 4), "4b185fa718387612"),
        (1024, 100, (1,), "6ac44a5db4f3d158"),
        (5, 9, (1,), "8ddaf3ad27eb0dd7"),
    ],
)
def test_a_release_assigns_as_the_one_before_it(count: int, size: int, weights: tuple[int, ...], known: str) -> None:
    """Else the nodes of a fleet disagree about every shard while it is upgraded."""
    members = [Member(f"w{n}@host", weights[n % len(weights)]) for n in range(size)]
    assert digest(assign(shard_names("orders", count), members)) == known


def test_owners_cannot_be_changed() -> None:
    owners = assign(shard_names("orders", 4), fleet(1, 2))
    with pytest.raises(TypeError):
        owners["orders.0"] = "me"  # type: ignore[index]


def test_members_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two members are named 'w1'"):
        assign(shard_names("orders", 4), [Member("w1"), Member("w2"), Member("w1", 2)])


@pytest.mark.parametrize("weight", [0, -1])
def test_a_member_without_weight_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="'w1' has weight"):
        Member("w1", weight)


def test_two_queues_do_not_have_the_same_owners() -> None:
    members = fleet(1, 8)
    orders, mails = (tuple(assign(shard_names(queue, 64), members).values()) for queue in ("orders", "mails"))
    assert sum(one == other for one, other in zip(orders, mails, strict=True)) < 24


# Load.


@seeded
@given(seeds, st.integers(2, 200), st.integers(8, 12), st.lists(st.integers(1, 16), min_size=1, max_size=5))
def test_no_member_owns_more_than_its_fair_share_and_a_quarter(
    seed: int, size: int, each: int, weights: list[int]
) -> None:
    members = fleet(seed, size, weights)
    total = sum(member.weight for member in members)
    loads = Counter(assign(shard_names("orders", each * size), members).values())
    for member in members:
        assert loads[member.name] <= math.ceil(5 * each * size * member.weight / (4 * total))


def test_a_fleet_with_fewer_shards_than_members_gives_nobody_two() -> None:
    assert set(Counter(assign(shard_names("orders", 30), fleet(1, 40)).values()).values()) == {1}


@given(seeds, st.integers(2, 6), st.integers(1, 24), st.lists(st.integers(1, 9), min_size=1, max_size=3))
@settings(deadline=None)
def test_a_few_shards_are_bounded_too(seed: int, size: int, count: int, weights: list[int]) -> None:
    members = fleet(seed, size, weights)
    total = sum(member.weight for member in members)
    loads = Counter(assign(shard_names("orders", count), members).values())
    for member in members:
        assert loads[member.name] <= math.ceil(5 * count * member.weight / (4 * total))


# Changes. A leave is a join backwards, so one figure stands for both.


@seeded
@given(seeds, st.integers(2, 12), st.integers(32, 64))
def test_removing_one_of_n_nodes_moves_only_its_shards_while_nobody_is_full(seed: int, size: int, each: int) -> None:
    shards, members = shard_names("orders", size * each), fleet(seed, size)
    assume(not full(shards, members) and not full(shards, members[:-1]))
    change = last_one_leaves(shards, members)
    assert change.moved == change.least


def full(shards: Sequence[str], members: Sequence[Member]) -> bool:
    rooms, loads = _rooms(shards, members), Counter(assign(shards, members).values())
    return any(loads[name] >= room for name, room in rooms.items())


@seeded
@given(seeds, st.integers(2, 200), st.integers(16, 24))
def test_from_sixteen_shards_a_node_no_leave_or_join_moves_more_than_twice_the_least(
    seed: int, size: int, each: int
) -> None:
    change = last_one_leaves(shard_names("orders", size * each), fleet(seed, size))
    assert change.moved <= 2 * change.least


@seeded
@given(seeds, st.integers(2, 40), st.lists(st.integers(1, 8), min_size=2, max_size=4))
def test_unequal_weights_move_no_more_than_twice_the_least(seed: int, size: int, weights: list[int]) -> None:
    """Where the least member's fair share is 16 shards or more."""
    members = fleet(seed, size, weights)
    lightest, total = min(member.weight for member in members), sum(member.weight for member in members)
    change = last_one_leaves(shard_names("orders", math.ceil(16 * total / lightest)), members)
    assert change.moved <= 2 * change.least


@pytest.fixture(scope="module")
def at_eight() -> list[Change]:
    """Changes in fleets of all sizes at the fewest shards a node that are sensible, which is the worst case."""
    sizes = [2 + 198 * n // 199 for n in range(200)]
    return [last_one_leaves(shard_names("orders", 8 * size), fleet(seed, size)) for seed, size in enumerate(sizes)]


def test_at_eight_shards_a_node_a_leave_or_join_moves_at_most_two_fifths_more_than_the_least(
    at_eight: list[Change],
) -> None:
    assert mean(change.ratio for change in at_eight) <= 1.4


def test_at_eight_shards_a_node_two_changes_in_a_hundred_at_most_move_more_than_twice_the_least(
    at_eight: list[Change],
) -> None:
    """The bound of 2 is not kept here: with 50 nodes and more about one change in a hundred exceeds it."""
    assert sum(change.ratio > 2 for change in at_eight) <= len(at_eight) / 50
    assert max(change.ratio for change in at_eight) <= 4


def test_up_to_eight_nodes_no_change_moves_more_than_twice_the_least() -> None:
    for seed in range(600):
        size = 2 + seed % 7
        change = last_one_leaves(shard_names("orders", 64), fleet(seed, size, (1, 2)))
        assert change.moved <= 2 * max(1, change.least)


@seeded
@given(seeds, st.integers(2, 40), st.integers(8, 32))
def test_more_shards_leave_most_of_the_others_where_they_are(seed: int, size: int, each: int) -> None:
    """So nodes that do not agree about the count yet, in a roll-out, agree about most shards."""
    members = fleet(seed, size)
    before = assign(shard_names("orders", size * each), members)
    after = assign(shard_names("orders", 2 * size * each), members)
    assert sum(after[shard] == owner for shard, owner in before.items()) >= 0.6 * len(before)


# The ring as a value.


def test_a_ring_knows_the_shards_of_each_member() -> None:
    ring = Ring.of(shard_names("orders", 64), fleet(1, 5))
    for member in ring.members:
        assert all(ring.owner(shard) == member.name for shard in ring.shards_of(member.name))
    assert sum(len(ring.shards_of(member.name)) for member in ring.members) == 64
    assert ring.owner("mails.1") is None


def test_the_heirs_of_a_member_are_who_owns_its_shards_once_it_is_gone() -> None:
    members = fleet(1, 5)
    ring = Ring.of(shard_names("orders", 64), members)
    assert ring.without(members[0].name) == Ring.of(shard_names("orders", 64), members[1:])
