"""A large fleet, made up in the store and on the broker: nodes, shards with a backlog, locks and dead letters."""

from __future__ import annotations

import json
import time

import redis

from celery_ha.model import Node
from celery_ha.store.redis import RedisStore
from tests.support.server import RedisServer

STEP = 5_000


def crowd(server: RedisServer, *, nodes: int, shards: int, locks: int, letters: int) -> None:
    """Fill a server that is empty; every tenth lock is waited for, every other shard has a message."""
    store, admin = RedisStore(server.url), redis.Redis.from_url(server.url)
    leases = [f"lease{at}" for at in range(nodes)]
    try:
        for at, lease in enumerate(leases):
            known = (("orders", shards),)
            store.leases.open(Node(lease, f"w{at}@host{at}", 4, ("celery", "orders"), ttl=60.0, shards=known))
        for at in range(0, shards, 2):
            admin.rpush(f"orders.{at}", "{}")
        _each(admin, locks, lambda pipe, at: _hold(pipe, at, leases[at % nodes]))
        _each(admin, letters, lambda pipe, at: _bury(pipe, at, leases[at % nodes]))
    finally:
        store.close()
        admin.close()


def _each(admin: redis.Redis, count: int, write) -> None:
    for start in range(0, count, STEP):
        pipe = admin.pipeline(transaction=False)
        for at in range(start, min(start + STEP, count)):
            write(pipe, at)
        pipe.execute()


def _hold(pipe, at: int, lease: str) -> None:
    """As locks.lua and line.lua write it."""
    token, name = int(time.time() * 1e6), f"account:{at}"
    record = {"lease": lease, "claim": f"{lease}.{at}", "task": f"task{at}", "token": token, "inherit": 0, "ask": ""}
    pipe.hset(f"_ha:lock:0:{name}", mapping=record)
    if at % 10 == 0:
        fields = ["call", lease, "c", f"waiter{at}", "0", "0", "ask"]
        pipe.rpush(f"_ha:line:{name}", "".join(f"{len(text)}:{text}" for text in fields))
        pipe.hset("_ha:lines", name, 1)


def _bury(pipe, at: int, lease: str) -> None:
    """As _settle.lua writes it."""
    letter, body = f"{lease}.{at}", json.dumps({"headers": {"id": f"task{at}", "task": "shop.charge"}, "body": "W10="})
    pipe.hset("_ha:dead", letter, f"10 6 celery{body}")
    pipe.hset("_ha:dead:why", letter, "unknown task")
    pipe.zadd("_ha:dead:index", {letter: 1e9 + at})
