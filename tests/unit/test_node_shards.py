"""How many shards a node knows of, through its life."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.config import Config
from celery_ha.errors import StoreUnavailable
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.worker import share
from celery_ha.worker.node import WorkerNode
from tests.support.fleet import eventually


class Broker(MemoryBroker):
    """With what a worker asks besides."""

    hands_over = False

    def queue_of(self, source: str) -> str:
        return source


@pytest.fixture
def brokers() -> MemoryBrokerServer:
    return MemoryBrokerServer(monotonic)


@pytest.fixture
def node(brokers: MemoryBrokerServer) -> Iterator[WorkerNode]:
    mine, other = (Broker(brokers) for _ in range(2))
    parts: Any = (MemoryStore(MemoryServer()), mine, other)
    made = WorkerNode("w@host", ("orders",), 1, Config(queues={"orders": 12}), *parts)
    made.open()
    yield made
    made.close()


def weight(node: WorkerNode) -> int:
    """As the others see it."""
    return node.store.court.look().nodes[node.lease].weight


def test_shards_come_to_a_node_that_consumes(node: WorkerNode) -> None:
    assert (weight(node), node.shards()) == (0, frozenset())
    # When it consumes
    node.consume()
    # Then it has its share, and the others know
    assert weight(node) == 1
    assert len(node.shards()) == 12


def test_a_share_that_could_not_be_told_is_told_when_the_store_is_back(
    node: WorkerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = node.life.keeper.offer

    def away(*_args: Any, **_more: Any) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(node.life.keeper, "offer", away)
    node.consume()
    assert weight(node) == 0
    monkeypatch.setattr(node.life.keeper, "offer", offer)
    eventually(lambda: weight(node) == 1)


def test_a_node_that_has_lost_the_broker_for_a_ttl_gives_its_shards_away_until_it_consumes_again(
    node: WorkerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0.0
    monkeypatch.setattr(share, "monotonic", lambda: monotonic() + later)
    node.consume()
    node.share.lose()
    node.share.lose()  # Celery tries again, and again
    assert node.share.weight == 1
    later = node.config.lease_ttl + 1
    node.share.lose()
    eventually(lambda: weight(node) == 0)
    assert node.shards() == frozenset()
    node.consume()
    assert weight(node) == 1


def test_shards_stay_where_they_are_over_an_outage_of_broker_and_store(
    node: WorkerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both are one server, everybody has lost it, and gets it back."""
    later, looks, there = 0.0, 0, node.store.court.look

    def away() -> Any:
        nonlocal looks
        looks += 1
        raise StoreUnavailable("away")

    def back() -> Any:
        nonlocal looks
        looks += 1
        return there()

    monkeypatch.setattr(share, "monotonic", lambda: monotonic() + later)
    node.consume()
    # Given both away for longer than a TTL
    monkeypatch.setattr(node.store.court, "look", away)
    node.share.lose()
    later, looks = node.config.lease_ttl + 1, 0
    eventually(lambda: looks >= 2)
    # When the store is back, and the broker not yet
    looks = 0
    monkeypatch.setattr(node.store.court, "look", back)
    eventually(lambda: looks >= 3)
    # Then its shards are its own
    assert there().nodes[node.lease].weight == node.share.weight == 1
    # And not for ever
    later *= 2
    eventually(lambda: there().nodes[node.lease].weight == 0)


def test_a_node_that_leaves_takes_no_shards_whatever_else_happens(node: WorkerNode) -> None:
    node.consume()
    node.drain()
    node.consume()
    found = node.store.court.look().nodes[node.lease]
    assert (found.weight, found.leaving) == (0, True)


def test_shards_of_a_new_lease_come_when_it_consumes_again(node: WorkerNode) -> None:
    node.consume()
    node.life.end()
    node.open()
    assert weight(node) == 0


def test_shards_of_a_node_that_came_and_went_unseen_are_consumed_after_the_next_stock_taking(
    node: WorkerNode, brokers: MemoryBrokerServer
) -> None:
    told: list[int] = []
    node.consume()
    eventually(lambda: node.life.fleet[1], why="it leads, and has written down and read the rings")
    node.on_members = lambda: told.append(len(node.shards()))
    assert len(node.shards()) == 12
    # When somebody with more of them has been here
    MemoryBroker(brokers).widest("orders", 16)
    node.take_stock()
    node.aside.finish(10)
    # Then the consumer is told to follow, and it does not happen again
    assert told == [16]
    node.take_stock()
    node.aside.finish(10)
    assert told == [16]
