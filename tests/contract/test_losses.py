"""What a worker says at its start of a Redis that loses, or may drop, what it is given."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import redis

from celery_ha.brokers.layout import Layout
from celery_ha.brokers.redis import RedisBroker
from celery_ha.inspect.losses import warn_of_losses
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.store.redis import RedisStore
from tests.support.server import RedisServer


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis("--appendonly", "yes", "--maxmemory-policy", "noeviction")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    def said(url: str, store: object = None) -> list[str]:
        broker = RedisBroker(redis.Redis.from_url(url), Layout())
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            warn_of_losses(broker, store or MemoryStore(MemoryServer()), apart=store is not None)
        return [record.getMessage() for record in caplog.records]

    return said


def test_a_server_that_keeps_everything_is_not_mentioned(server, said):
    assert said(server.url) == []


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("appendonly", "no", "keeps nothing over a restart"),
        ("maxmemory-policy", "allkeys-lru", "may drop queues and locks"),
    ],
)
def test_what_a_server_loses_is_said_with_what_to_do(server, said, setting: str, value: str, words: str):
    client = redis.Redis.from_url(server.url)
    client.config_set("maxmemory", "1gb")
    client.config_set("save", "")
    client.config_set(setting, value)
    (line,) = said(server.url)
    assert line.startswith("The broker ")
    assert words in line
    assert f"CONFIG SET {setting}" in line


def test_a_store_of_its_own_is_looked_at_too(server, start_redis, said):
    store = RedisStore(start_redis().url)
    assert [line.split()[:2] for line in said(server.url, store)] == [["The", "store"]]
    store.close()


def test_a_server_that_does_not_tell_is_let_be(server, said):
    redis.Redis.from_url(server.url).acl_setuser(
        "shy", enabled=True, nopass=True, keys="*", commands=["+@all", "-info"]
    )
    assert said(server.url.replace("redis://", "redis://shy:any@")) == []
