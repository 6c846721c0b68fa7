"""Which node consumes which shard."""

from __future__ import annotations

from collections import Counter

import pytest

from celery_ha.keys import shard_names
from celery_ha.model import Node
from celery_ha.worker.shards import owned_shards, standby_shards, widened


def node(at: int, shards: int, *, weight: int = 2, opened: float = 0.0) -> Node:
    return Node(f"l{at}", f"w{at}@host", weight, ("orders",), opened=opened, shards=(("orders", shards),))


@pytest.mark.parametrize("counts", [(4, 12), (12, 4), (4, 4, 12), (12, 12, 4), (5, 7, 11)])
def test_while_nodes_know_different_numbers_of_shards_each_of_the_most_has_one_owner(counts: tuple[int, ...]):
    nodes = [node(at, count) for at, count in enumerate(counts)]
    # Each by its own number of shards
    owned = Counter(shard for each in nodes for shard in owned_shards(each.name, dict(each.shards), nodes))
    assert owned == Counter(shard_names("orders", max(counts)))
    # And one who stands behind that
    seconds = Counter(shard for each in nodes for shard in standby_shards(each.name, dict(each.shards), nodes))
    assert seconds == owned


def test_node_that_drains_still_says_how_many_shards_there_are():
    nodes = [node(0, 4), node(1, 12, weight=0)]
    assert owned_shards("w0@host", {"orders": 4}, nodes) == set(shard_names("orders", 12))


def test_number_of_shards_of_a_queue_that_is_not_consumed_here_is_nothing_to_us():
    other = Node("l1", "w1@host", 1, ("mails",), shards=(("mails", 8),))
    assert widened({"orders": 4}, [node(0, 3), other]) == {"orders": 4}
