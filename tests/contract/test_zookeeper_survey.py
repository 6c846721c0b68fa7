"""What a store in ZooKeeper tells people, on a real server."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator

import pytest

from celery_ha.model import Holder, Node, Recovered, Waiter
from celery_ha.store.zookeeper import ZooKeeperStore
from celery_ha.store.zookeeper.link import children, get
from tests.support.fleet import eventually
from tests.support.zookeeper import ZooKeeper

NODE = Node("lease", "w1@host", 2, ("q",), ttl=10.0)


@pytest.fixture
def make(zookeeper_server: ZooKeeper) -> Iterator[Callable[[], ZooKeeperStore]]:
    """Clients of one store where nobody was before."""
    stores, url = [], f"{zookeeper_server.url}-{secrets.token_hex(4)}"

    def client() -> ZooKeeperStore:
        stores.append(ZooKeeperStore(url))
        return stores[-1]

    yield client
    for store in stores:
        store.close()


@pytest.fixture
def store(make) -> ZooKeeperStore:
    made = make()
    made.leases.open(NODE)
    return made


def holder(at: int) -> Holder:
    return Holder(NODE.lease, f"{NODE.lease}.{at}", f"task{at}")


def acquire(store: ZooKeeperStore, name: str, at: int, **more: float) -> int | None:
    return store.locks.acquire(name, holder(at), inherit=60, **more).token


def test_held_locks_with_their_slots(store):
    tokens = [acquire(store, "pool: a", at, limit=2) for at in (1, 2)]
    brief = acquire(store, "brief", 3, max_hold=30.0)
    first, second, third = store.survey.locks()
    assert (first.name, first.slot, first.holder, first.token, first.since) == ("brief", 0, holder(3), brief, None)
    assert 0 < first.left <= 31
    assert [(lock.name, lock.slot, lock.holder, lock.left) for lock in (second, third)] == [
        ("pool: a", 0, holder(1), None),
        ("pool: a", 1, holder(2), None),
    ]
    assert [second.token, third.token] == tokens
    assert store.survey.slots() == {("brief", 0), ("pool: a", 0), ("pool: a", 1)}
    assert store.survey.locks([("pool: a", 1), ("gone", 0)]) == (third,)


def test_lock_in_trust_is_nobodys(store):
    acquire(store, "lock", 1)
    store.leases.close(NODE.lease, clean=False)
    store.locks.settle(NODE.lease, {holder(1).claim: "task1"})
    (lock,) = store.survey.locks()
    assert (lock.holder.lease, lock.holder.task) == ("", "task1")
    assert 0 < lock.left <= 61


def test_who_stands_in_line_and_a_release_that_hands_on(store, make):
    # Given somebody who waits for a lock
    seen, granted = acquire(store, "busy", 1), []
    other = make()
    wait = threading.Thread(target=lambda: granted.append(acquire(other, "busy", 2, wait=20.0)), daemon=True)
    wait.start()
    assert eventually(store.survey.lines, why="in line") == {"busy": 1}
    assert store.survey.line("busy", 9) == (Waiter("task2", lease=NODE.lease),)
    assert store.survey.line("free", 9) == ()
    # When it is taken from its holder
    assert store.survey.release("busy", {0: seen}, 'an "admin"@host') == 1
    # Then the next has it, the holder has not, and who did so is noted
    wait.join(20)
    assert granted[0] > seen
    assert not store.locks.holds("busy", holder(1), seen)
    folder = store.paths.at("releases")
    (names,) = store.link.ask(children(folder))
    ((data, _),) = store.link.ask(*(get(f"{folder}/{name}") for name in names))
    note = json.loads(data)
    assert (note["lock"], note["by"], note["freed"]) == ("busy", 'an "admin"@host', 1)


def test_release_frees_every_slot(store):
    tokens = {at: acquire(store, "pool", at, limit=2) for at in (0, 1)}
    assert store.survey.release("pool", tokens, "admin") == 2
    assert store.survey.locks() == ()


def test_release_leaves_a_lock_alone_that_changed_hands(store):
    seen = acquire(store, "lock", 1)
    store.locks.release("lock", holder(1), seen)
    token = acquire(store, "lock", 2)
    assert store.survey.release("lock", {0: seen}, "admin") == 0
    assert store.locks.holds("lock", holder(2), token)
    assert store.link.ask(children(store.paths.at("releases"))) == [[]]


def test_history_says_who_it_was_and_how_long_it_took(store):
    store.leases.close(NODE.lease, clean=False)
    store.court.recovered(Recovered(NODE.lease, 3, 1, 2, {"q": 3}))
    (found,) = store.survey.failovers(9)
    assert found.fenced.node.name == NODE.name
    assert found.recovered == Recovered(NODE.lease, 3, 1, 2, {"q": 3})
    assert 0 <= found.done - found.fenced.at < 60
    assert store.survey.now() > 1e9


def test_a_server_says_what_it_is_and_how_long_it_waits_for_the_silent(store, zookeeper_server: ZooKeeper):
    facts = store.survey.facts()
    assert facts["zookeeper_mode"] == "standalone"
    assert int(facts["zookeeper_version"].partition(".")[0]) >= 3
    assert float(facts["session_timeout"]) == float(facts["session_asked"]) == 2.5


def test_who_took_locks_is_told_the_newest_first(store):
    assert store.survey.releases(9) == ()
    for at, name in enumerate(("first", "second"), 1):
        store.survey.release(name, {0: acquire(store, name, at)}, f"{name}@host")
    newest, oldest = store.survey.releases(9)
    assert [(each.name, each.by, each.freed) for each in (newest, oldest)] == [
        ("second", "second@host", 1),
        ("first", "first@host", 1),
    ]
    assert newest.at >= oldest.at > 1e9
    assert store.survey.releases(1) == (newest,)
