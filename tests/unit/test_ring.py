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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_ha.keys import shard_names
from celery_ha.ring import Member, Ring, assign

seeded = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 1 << 32)


def fleet(seed: int, size: int, weights: Sequence[int] = (1,)) -> list[Member]:
    dice = random.Random(seed)
    return [Member(f"w{n}@{dice.getrandbits(32):08x}", dice.choice(weights)) for n in range(size)]


def digest(owners: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(owners)).encode()).hexdigest()[:16]


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
        (64, 3, (1,), "6d3d70ef5eb5cf30"),
        (64, 8, (1, 2, 4), "db6994408ce9d4e9"),
        (1024, 100, (1,), "53883b6e77d98b1a"),
        (5, 9, (1,), "c7dd48ba7801ef01"),
    ],
)
def test_a_release_assigns_as_the_one_before_it(count: int, size: int, weights: tuple[int, ...], known: str) -> None:
    """Else the nodes of a fleet disagree about every shard while it is upgraded."""
    members = [Member(f"w{n}@host", weights[n % len(weights)]) for n in range(size)]
    ring = Ring.of(shard_names("orders", count), members).without("w1@host")
    assert digest(ring.among([*ring.members, Member("w1@host", 2)]).owners) == known


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


# Changes. The members have any history: what they own now, and so what moves, depends on it.


@dataclass(frozen=True)
class Change:
    """One member more or less."""

    before: Ring
    after: Ring
    #: Who left or joined.
    name: str

    @property
    def moved(self) -> int:
        return sum(self.before.owner(shard) != owner for shard, owner in self.after.owners.items())

    @property
    def least(self) -> int:
        """What the leaver owned, or the joiner gets: no way to go or come moves fewer."""
        return len(self.before.shards_of(self.name)) + len(self.after.shards_of(self.name))

    @property
    def ratio(self) -> float:
        return self.moved / max(1, self.least)


def churn(seed: int, ring: Ring, weights: Sequence[int], smallest: int, largest: int) -> Iterator[Change]:
    """Members leave and join, by chance, between these sizes, for ever."""
    dice = random.Random(seed)
    while True:
        size = len(ring.members)
        if size > smallest and (size >= largest or dice.random() < 0.5):
            name = dice.choice(ring.members).name
            after = ring.without(name)
        else:
            (joiner,) = fleet(dice.getrandbits(32), 1, weights)
            name, after = joiner.name, ring.among([*ring.members, joiner])
        yield Change(ring, after, name)
        ring = after


def grown(seed: int, size: int, each: int, weights: Sequence[int] = (1,)) -> Ring:
    return Ring.of(shard_names("orders", size * each), fleet(seed, size, weights))


def check(change: Change) -> None:
    """The bounds of each change: even shares, and no shard moves that need not."""
    ring, loads = change.after, Counter(change.after.owners.values())
    total = sum(member.weight for member in ring.members)
    for member in ring.members:
        assert loads[member.name] <= math.ceil(5 * len(ring.owners) * member.weight / (4 * total))
    assert change.moved <= 2 * change.least
    assert change.moved == change.least


@seeded
@given(seeds, st.integers(2, 200), st.integers(8, 12))
def test_a_leave_or_join_moves_what_the_leaver_owned_or_the_joiner_gets_and_nothing_else(
    seed: int, size: int, each: int
) -> None:
    changes = churn(seed, grown(seed, size, each), (1,), max(1, size // 2), size + size // 4 + 1)
    for _ in range(12):
        change = next(changes)
        check(change)
        # An even share: nobody gets away with moving little by taking little.
        assert min(Counter(change.after.owners.values()).values()) >= size * each // len(change.after.members)


@seeded
@given(seeds, st.integers(2, 60), st.integers(8, 40), st.lists(st.integers(1, 8), min_size=2, max_size=4))
def test_members_of_unequal_weight_move_no_more_either(seed: int, size: int, each: int, weights: list[int]) -> None:
    changes = churn(seed, grown(seed, size, each, weights), weights, max(1, size // 2), 2 * size)
    for _ in range(12):
        check(next(changes))


@pytest.mark.parametrize("weights", [(1,), (1, 2, 4, 8)])
def test_a_long_history_leaves_no_trace(weights: tuple[int, ...]) -> None:
    changes = churn(1, grown(1, 25, 8, weights), weights, 5, 60)
    seen = [next(changes) for _ in range(1500)]
    for change in seen:
        check(change)
    assert mean(change.ratio for change in seen) <= 1.4


@pytest.mark.parametrize(("size", "weights"), [(200, (1,)), (80, (1, 2, 3, 4, 5, 6, 7, 8))])
def test_a_fleet_that_shrinks_to_a_quarter_and_grows_again_stays_even(size: int, weights: tuple[int, ...]) -> None:
    ring = grown(3, size, 8, weights)
    for smallest, largest in ((size // 4, size // 4 + 1), (size - 1, size)):
        changes = churn(5, ring, weights, smallest, largest)
        for _ in range(size - size // 4):
            change = next(changes)
            check(change)
        ring = change.after


@seeded
@given(seeds, st.integers(3, 60), st.integers(8, 12), st.integers(2, 10))
def test_many_that_go_at_once_move_what_they_owned_and_nothing_else(seed: int, size: int, each: int, n: int) -> None:
    ring = grown(seed, size, each)
    left = ring.among(ring.members[: max(1, size - n)])
    gone = {member.name for member in ring.members} - {member.name for member in left.members}
    assert {shard for shard in ring.owners if ring.owner(shard) != left.owner(shard)} == {
        shard for shard, owner in ring.owners.items() if owner in gone
    }


# The last ring.


@seeded
@given(seeds, st.integers(1, 30), st.integers(0, 90), st.integers(1, 90), st.lists(st.integers(1, 9), min_size=1))
def test_whoever_has_read_the_answer_already_works_out_the_same(
    seed: int, size: int, known: int, count: int, weights: list[int]
) -> None:
    """Whatever the last ring was, and if one node knows of more shards than another."""
    dice, members = random.Random(seed), fleet(seed, size, weights)
    last = tuple(dice.choice([*members, Member("gone")]).name for _ in range(known))
    written = tuple(assign(shard_names("orders", max(known, 1)), members, last).values())
    early, late = (assign(shard_names("orders", count), members, ring) for ring in (last, written))
    assert early == late


@seeded
@given(seeds, st.integers(1, 40), st.integers(1, 200), st.integers(1, 200))
def test_more_shards_leave_the_others_where_they_are(seed: int, size: int, count: int, more: int) -> None:
    """So nodes that do not agree about the count yet, in a roll-out, agree about the shards that both know."""
    members = fleet(seed, size, (1, 2, 3))
    before = assign(shard_names("orders", count), members)
    after = assign(shard_names("orders", count + more), members)
    assert {shard: after[shard] for shard in before} == before


def test_a_ring_that_was_uneven_is_evened_out_with_the_next() -> None:
    members = fleet(1, 4)
    last = [members[0].name] * 30 + ["gone"] * 2
    after = assign(shard_names("orders", 32), members, last)
    assert set(Counter(after.values()).values()) == {8}
    assert sum(after[shard] == owner for shard, owner in zip(after, last, strict=True)) == 8


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
    heirs = ring.without(members[0].name)
    assert heirs == Ring.of(shard_names("orders", 64), members[1:], tuple(ring.owners.values()))
    assert {shard for shard in heirs.owners if heirs.owner(shard) != ring.owner(shard)} == {
        *ring.shards_of(members[0].name)
    }
