"""What the store tells people, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from celery_ha.model import Holder, Node, Recovered, Waiter
from celery_ha.store.redis import RedisStore
from tests.support.server import RedisServer

#: Every character that a glob takes for something else.
PREFIX = r"t[a-b]*?\^:"
NODE = Node("lease", "w1@host", 2, ("q",), ttl=10.0)


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(redis_server: RedisServer, admin: redis.Redis) -> Iterator[RedisStore]:
    made = RedisStore(redis_server.url, prefix=PREFIX)
    made.leases.open(NODE)
    yield made
    made.close()


def holder(at: int) -> Holder:
    return Holder(NODE.lease, f"{NODE.lease}.{at}", f"task{at}")


def acquire(store: RedisStore, name: str, at: int, **more: float) -> int | None:
    return store.locks.acquire(name, holder(at), inherit=60, **more).token


def test_held_locks_with_their_slots_and_nobody_elses(store: RedisStore, redis_server: RedisServer):
    # Given a lock of two slots, one with an end, and a lock of another app on the same server
    tokens = [acquire(store, "pool: a", at, limit=2) for at in (1, 2)]
    brief = acquire(store, "brief", 3, max_hold=30.0)
    other = RedisStore(redis_server.url, prefix="tab:")
    other.leases.open(NODE)
    acquire(other, "theirs", 4)
    other.close()
    # Then each slot is there, by name
    first, second, third = store.survey.locks()
    assert (first.name, first.slot, first.holder, first.token) == ("brief", 0, holder(3), brief)
    assert 0 < first.left <= 30
    assert [(lock.name, lock.slot, lock.holder, lock.left) for lock in (second, third)] == [
        ("pool: a", 0, holder(1), None),
        ("pool: a", 1, holder(2), None),
    ]
    assert [second.token, third.token] == tokens
    # And some of them can be asked for
    assert store.survey.slots() == {("brief", 0), ("pool: a", 0), ("pool: a", 1)}
    assert store.survey.locks([("pool: a", 1), ("gone", 0)]) == (third,)


def test_who_stands_in_line(store: RedisStore, admin: redis.Redis):
    # Given a caller and a parked message in line, in the form that line.lua writes
    parts = [["call", NODE.lease, "c", "task7", "0", "0", "ask"], ["task", "k:q", "bell", "task8", "0", "a payload"]]
    for fields in parts:
        admin.rpush(f"{PREFIX}line:busy", "".join(f"{len(text)}:{text}" for text in fields))
    admin.hset(f"{PREFIX}lines", "busy", 1)
    assert store.survey.lines() == {"busy": 2}
    assert store.survey.line("busy", 9) == (Waiter("task7", lease=NODE.lease), Waiter("task8", queue="k:q"))
    assert len(store.survey.line("busy", 1)) == 1
    assert store.survey.line("free", 9) == ()


def test_release_frees_every_slot_and_notes_who_did_it(store: RedisStore, admin: redis.Redis):
    tokens = {at: acquire(store, "pool", at, limit=2) for at in (0, 1)}
    assert store.survey.release("pool", tokens, 'an "admin"@host') == 2
    assert store.survey.locks() == ()
    assert not store.locks.holds("pool", holder(0), tokens[0])
    (note,) = map(json.loads, admin.lrange(f"{PREFIX}releases", 0, -1))
    assert (note["lock"], note["by"], note["freed"]) == ("pool", 'an "admin"@host', 2)
    assert note["at"] > 0
    assert admin.ttl(f"{PREFIX}releases") > 0
    # And nothing of it is left behind for its holders
    assert not admin.keys(PREFIX.replace("[", r"\[").replace("*", r"\*").replace("\\^", "?") + "held:*")


def test_release_leaves_a_lock_alone_that_changed_hands(store: RedisStore, admin: redis.Redis):
    seen = acquire(store, "lock", 1)
    store.locks.release("lock", holder(1), seen)
    token = acquire(store, "lock", 2)
    assert store.survey.release("lock", {0: seen}, "admin") == 0
    assert store.locks.holds("lock", holder(2), token)
    assert not admin.exists(f"{PREFIX}releases")


def test_notes_are_bounded(store: RedisStore, admin: redis.Redis):
    admin.rpush(f"{PREFIX}releases", *range(300))
    store.survey.release("lock", {0: acquire(store, "lock", 1)}, "admin")
    assert admin.llen(f"{PREFIX}releases") == 200


def test_who_took_locks_is_told_the_newest_first(store: RedisStore):
    for at, name in enumerate(("first", "second"), 1):
        store.survey.release(name, {0: acquire(store, name, at)}, f"{name}@host")
    newest, oldest = store.survey.releases(9)
    assert [(each.name, each.by, each.freed) for each in (newest, oldest)] == [
        ("second", "second@host", 1),
        ("first", "first@host", 1),
    ]
    assert newest.at >= oldest.at > 1e9
    assert store.survey.releases(1) == (newest,)


def test_history_says_how_long_it_took(store: RedisStore, admin: redis.Redis):
    # Given a recovery that is finished, and one that an older version wrote
    store.leases.close(NODE.lease, clean=False)
    store.court.recovered(Recovered(NODE.lease, 3, 1, 2, {"q": 3}))
    entry = json.loads(admin.lindex(f"{PREFIX}history", 0))
    del entry["done"]
    admin.rpush(f"{PREFIX}history", json.dumps(entry))
    new, old = store.survey.failovers(9)
    assert new.fenced.node.name == NODE.name
    assert new.recovered == Recovered(NODE.lease, 3, 1, 2, {"q": 3})
    assert 0 <= new.done - new.fenced.at < 60
    assert old.done is None
    assert len(store.survey.failovers(1)) == 1


def test_server_facts(store: RedisStore):
    facts = store.survey.facts()
    assert facts["maxmemory_policy"] == "noeviction"
    assert (facts["aof_enabled"], facts["save"]) == ("0", "")
    assert store.survey.now() > 1e9
