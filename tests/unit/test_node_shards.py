"""How many shards a node knows of, through its life."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.config import Config
from celery_ha.store.memory import MemoryServer, MemoryStore
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


def test_shards_of_a_node_that_came_and_went_unseen_are_consumed_after_the_next_stock_taking(
    node: WorkerNode, brokers: MemoryBrokerServer
) -> None:
    told: list[int] = []
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
