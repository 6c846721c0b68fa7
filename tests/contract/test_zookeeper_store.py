"""What only the ZooKeeper store can get wrong: sessions, forks, servers that stall, restart or elect."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from signal import SIGCONT, SIGSTOP

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from celery_ha.attempts.base import ACK_SENT, Attempt, Earlier, Started
from celery_ha.attempts.zookeeper import ZooKeeperAttempts
from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.model import Ending, Holder, LeaseState, Node, Settlement, Verdict
from celery_ha.store.zookeeper import ZooKeeperStore
from celery_ha.store.zookeeper import broom as brooms
from celery_ha.store.zookeeper.link import Conflict, children
from celery_ha.store.zookeeper.ops import Delete
from celery_ha.store.zookeeper.records import Waiter
from celery_ha.store.zookeeper.znodes import lock_key
from tests.contract.conftest import ZooKeeperBackend, expire
from tests.support.fleet import eventually
from tests.support.zookeeper import ZooKeeper, ensemble, zookeeper_is_here

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(not zookeeper_is_here(), reason="no ZooKeeper here: tools/services.sh says what to install"),
]

HOLDER = Holder("a", "a.1", "t")


@pytest.fixture
def url(zookeeper_server, request):
    """A path of its own for each test."""
    return f"zookeeper://{zookeeper_server.host}/{request.node.name}"


@pytest.fixture
def make_store():
    stores = []

    def make(url: str, **options: object) -> ZooKeeperStore:
        stores.append(ZooKeeperStore(url, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def own_server():
    server = ZooKeeper()
    server.start()
    yield server
    server.close()


def test_nobody_is_there(make_store):
    store = make_store("zookeeper://127.0.0.1:1/x", timeout=0.3)

    with pytest.raises(StoreUnavailable):
        store.leases.open(Node("a", "a@host"))


def test_server_that_stalls_is_unavailable_in_time_and_kills_nobody(own_server, make_store):
    # Given two nodes, of which one judges
    a, b = (make_store(own_server.url + "?session_timeout=1", timeout=0.4) for _ in range(2))
    a.leases.open(Node("a", "a@host"))
    b.leases.open(Node("b", "b@host"))
    term = a.court.elect("a")
    seen = a.court.look()
    # When the server answers nobody
    own_server.send(SIGSTOP)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        b.leases.renew("b")
    assert time.monotonic() - started < 2.0
    eventually(lambda: not any(link._client.connected for link in (a._a, a._b, b._a, b._b)), why="nobody is connected")
    own_server.send(SIGCONT)
    # Then whoever renews is there, and what was seen before does not count
    renewal = eventually(lambda: _tried(lambda: b.leases.renew("b")), why="renewed")
    assert renewal.state is LeaseState.OPEN
    look = eventually(lambda: _tried(a.court.look), why="a look")
    assert look.session != seen.session
    assert look.counters["b"] > seen.counters["b"]
    verdict = Verdict("b", "connections gone", seen.counters["b"], seen.nodes["b"].connections)
    eventually(lambda: _tried(lambda: a.leases.renew("a")), why="connected")
    assert not a.court.fence(term, "a", verdict)


def _tried(call):
    try:
        return call()
    except StoreUnavailable:
        return False


def test_restarted_server_remembers_leases_locks_and_its_last_token(own_server, make_store):
    store = make_store(own_server.url, timeout=5.0)
    epoch = store.leases.open(Node("a", "a@host"))
    old = store.locks.acquire("x", HOLDER, inherit=60)

    own_server.stop()
    own_server.start()

    renewal = eventually(lambda: _tried(lambda: store.leases.renew("a")), why="renewed")
    assert (renewal.state, renewal.epoch) == (LeaseState.OPEN, epoch)
    assert store.locks.holds("x", HOLDER, old.token)
    assert store.locks.release("x", HOLDER, old.token)
    assert store.locks.acquire("x", HOLDER, inherit=60).token > old.token


def test_leaders_death_in_an_ensemble_loses_no_lease_and_no_lock(make_store):
    with ensemble() as servers:
        url = f"zookeeper://{','.join(server.host for server in servers)}/x?session_timeout=3"
        store, other = make_store(url, timeout=5.0), make_store(url, timeout=5.0)
        store.leases.open(Node("a", "a@host"))
        other.leases.open(Node("b", "b@host"))
        old = store.locks.acquire("x", HOLDER, inherit=60)

        leading = next(server for server in servers if "Mode: leader" in server.asked("srvr"))
        leading.stop()

        renewal = eventually(lambda: _tried(lambda: store.leases.renew("a")), why="renewed")
        assert renewal.state is LeaseState.OPEN
        eventually(lambda: _tried(lambda: other.court.look().nodes.keys() == {"a", "b"}), why="seen by both")
        assert store.locks.holds("x", HOLDER, old.token)
        assert store.locks.release("x", HOLDER, old.token)
        new = eventually(lambda: _tried(lambda: other.locks.acquire("x", Holder("b", "b.1", "u"), inherit=1)))
        assert new.token > old.token


def test_session_timeout_is_what_the_server_grants(url, make_store):
    store = make_store(url + "?session_timeout=2")
    assert store.leases.notice == float("inf")

    store.leases.open(Node("a", "a@host"))

    assert store.leases.notice == 2.0
    store = make_store(url + "?session_timeout=500")
    store.leases.open(Node("b", "b@host"))
    assert store.leases.notice == 20 * 0.2, "twenty ticks are the most"


def test_lease_whose_session_ended_goes_on_under_the_next(url, make_store):
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    token = store.locks.acquire("x", HOLDER, inherit=60).token

    expire(store._a, url)

    assert eventually(lambda: _tried(lambda: store.leases.renew("a"))).state is LeaseState.OPEN
    assert store.locks.holds("x", HOLDER, token)


def test_sessions_that_the_store_forgot_are_announced_again_before_they_are_registered(url, make_store):
    # Given a node whose store lost its memory, but not its sessions
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    store._a._client.delete(f"/{url.rpartition('/')[2]}", recursive=True)
    # When it opens its lease again, looks and renews
    assert store.leases.renew("a").state is LeaseState.UNKNOWN
    store.leases.open(Node("a", "a@host"))
    store.court.look()
    assert store.leases.renew("a").state is LeaseState.OPEN
    # Then it is watched by sessions that are seen
    look = store.court.look()
    assert len(look.nodes["a"].connections) == 2
    assert look.present == set(look.nodes["a"].connections)


def test_client_that_gave_up_for_good_is_replaced(url, make_store):
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    given_up = store._a._client

    given_up.stop()  # its thread is gone, as after a refused login

    assert store.leases.renew("a").state is LeaseState.OPEN
    assert store._a._client is not given_up


def test_wait_tells_that_the_connection_was_lost(url, make_store):
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    assert store.leases.wait("a", 0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.leases.wait, "a", 60)
        eventually(lambda: store._b._bells, why="waiting")

        store._b._client._connection._socket.shutdown(2)

        with pytest.raises(StoreUnavailable):
            waiting.result(20)


def test_caller_that_waits_leaves_the_line_with_its_session(url, make_store):
    holding, waiting = make_store(url), make_store(url)
    holding.leases.open(Node("a", "a@host"))
    waiting.leases.open(Node("b", "b@host"))
    token = holding.locks.acquire("x", HOLDER, inherit=60).token
    with ThreadPoolExecutor(1) as pool:
        gone = pool.submit(waiting.locks.acquire, "x", Holder("b", "b.1", "u"), inherit=1, wait=60)
        eventually(lambda: holding.locks.waiting("x") == 1, why="in line")
        line = _line(holding)

        expire(waiting._a, url)

        eventually(lambda: _line(holding) != line, why="not there any more")
        assert holding.locks.release("x", HOLDER, token)
        assert (taken := _outcome(gone)) is StoreUnavailable or taken > token


def test_caller_whose_place_in_line_is_gone_stands_in_it_again_while_it_has_time(url, make_store):
    # Given a caller in line, which was served and too slow for its max_hold, or lost its session: the place is gone
    holding, waiting = make_store(url), make_store(url)
    holding.leases.open(Node("a", "a@host"))
    waiting.leases.open(Node("b", "b@host"))
    token = holding.locks.acquire("x", HOLDER, inherit=60).token
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiting.locks.acquire, "x", Holder("b", "b.1", "u"), inherit=1, wait=60)
        eventually(lambda: holding.locks.waiting("x") == 1, why="in line")
        line = _line(holding)
        holding._a.commit(Delete(line[0]))
        # Then it is in line again, and served
        eventually(lambda: _line(holding) not in ([], line), why="in line again")
        assert holding.locks.release("x", HOLDER, token)
        assert answer.result(20).token > token


def _line(store):
    path = store.locks._paths.lock(lock_key("x"))
    (names,) = store._a.ask(children(path))
    return [f"{path}/{name}" for name in names or () if name.startswith("line-")]


def _outcome(future):
    try:
        return future.result(20).token
    except StoreUnavailable:
        return StoreUnavailable


def test_change_decided_on_a_lock_that_was_freed_and_taken_again_is_not_written(url, make_store):
    # Given what was read of a lock that is held
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    first = store.locks.acquire("x", HOLDER, inherit=60)
    desk = store.locks._desk
    read = desk.read("x")
    # When it is freed and taken again, and so has the same version
    assert store.locks.release("x", HOLDER, first.token)
    other = Holder("a", "a.2", "u")
    second = store.locks.acquire("x", other, inherit=60)
    assert desk.read("x").version == read.version
    # Then nobody may act on what was read
    for act in (
        lambda: desk.join(read, Waiter(Holder("a", "a.3", "v"), 60), 1),
        lambda: desk.change(read, read.lock.without(0)),
        lambda: desk.grant(read, 0, Waiter(Holder("a", "a.3", "v"), 60), 1),
    ):
        with pytest.raises(Conflict):
            act()
    assert store.locks.holds("x", other, second.token)


def test_lock_is_not_granted_to_a_claim_or_a_lease_that_ended_since_it_was_read(url, make_store):
    # Given what was read of free locks
    store, judge = make_store(url), make_store(url)
    store.leases.open(Node("a", "a@host"))
    judge.leases.open(Node("judge", "judge@host"))
    desk = store.locks._desk
    read = [desk.read("x"), desk.read("y")]
    # When the end of a claim is told, and then the lease is fenced
    store.locks.ended(("a.1",))
    with pytest.raises(Conflict):
        desk.grant(read[0], 0, Waiter(HOLDER, 60), 1)
    assert store.leases.close("a", clean=False)
    # Then neither gets its lock
    with pytest.raises(Conflict):
        desk.grant(read[1], 0, Waiter(Holder("a", "a.2", "u"), 60), 1)
    assert judge.locks.acquire("x", Holder("judge", "judge.1", "v"), inherit=1).token is not None


def test_storm_of_callers_and_lost_sessions_leaves_one_holder_and_nothing_behind(url):
    # Given six nodes that take, wait for, keep and end few locks, and lose their sessions at times
    backend = ZooKeeperBackend(url)
    inside, seen, members = threading.Lock(), [], []

    def live(number: int) -> None:
        chance = random.Random(number)
        store, lease = backend.client(), f"node{number}"
        store.leases.open(Node(lease, f"{lease}@host"))
        members.append((store, lease))
        for claim in range(25):
            holder = Holder(lease, f"{lease}.{claim}", f"t{claim % 3}")
            name, limit = chance.choice([("alone", 1), ("pair", 2)])
            grant, holds = None, False
            with suppress(StoreUnavailable):
                grant = store.locks.acquire(name, holder, inherit=60, limit=limit, wait=chance.choice([0, 0.05, 5]))
                if grant.token is not None and name == "alone":
                    assert inside.acquire(blocking=False), "two holders"
                    seen.append(grant.token)
                    holds = True
            if chance.random() < 0.05:
                expire(store._a, url)
            if holds:
                inside.release()
            if chance.random() < 0.5 and grant is not None and grant.token is not None:
                with suppress(StoreUnavailable):
                    store.locks.release(name, holder, grant.token)
            eventually(lambda: _tried(lambda: store.locks.ended((holder.claim,)) is not None))  # noqa: B023

    # When all are done
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(live, range(6)))
    # Then tokens grew, everybody can leave, and no znode of a lock is left
    assert seen == sorted(set(seen))
    assert all(eventually(lambda: _tried(lambda: store.leases.close(lease, clean=True))) for store, lease in members)  # noqa: B023
    backend.check_leaks()
    assert backend._names(f"{backend.root}/_ha:/locks") == []
    backend.close()


def test_two_prefixes_are_two_stores(url, make_store):
    one, two = make_store(url), make_store(url, prefix="other:")
    one.leases.open(Node("a", "a@host"))
    two.leases.open(Node("b", "b@host"))

    assert set(one.court.look().nodes) == {"a"}
    assert set(two.court.look().nodes) == {"b"}


def test_only_who_knows_the_password_reads_or_writes(url, make_store):
    host, path = url.removeprefix("zookeeper://").split("/")
    store = make_store(f"zookeeper://ann:p%40w@{host}/{path}")
    store.leases.open(Node("a", "a@host"))
    assert store.leases.renew("a").state is LeaseState.OPEN
    assert store.locks.acquire("x", HOLDER, inherit=1).token is not None

    with pytest.raises(StoreError):
        make_store(f"zookeeper://ann:wrong@{host}/{path}").court.look()

    stranger = KazooClient(host)
    stranger.start()
    with pytest.raises(NoAuthError):
        stranger.get(f"/{path}/_ha:/leases/=a")
    stranger.stop()
    stranger.close()


def test_what_is_too_old_is_swept(url, make_store, monkeypatch):
    monkeypatch.setattr(brooms, "EVERY", 0.0)
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    ends = store.locks._ends
    store.locks.ended(("a.1", "a.2"))
    assert len(store._a._client.get_children(ends._folder)) == 2

    ends._ttl = -60.0
    ends.sweep()

    assert store._a._client.get_children(ends._folder) == []


def test_counts_of_messages_that_never_came_back_are_swept_those_of_running_ones_stay(url, make_store, monkeypatch):
    monkeypatch.setattr(brooms, "EVERY", 0.0)
    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    attempts = ZooKeeperAttempts(store)
    for claim, message in (("a.1", "elsewhere"), ("a.2", "here")):
        assert attempts.start("a", Attempt(claim, message, "task", "orders.1")) is Started.YES
    attempts.settle("a", [(Settlement("a.1", Ending.RELEASE, payload=b""), ACK_SENT)])
    assert attempts.earlier("elsewhere").count == 1

    attempts._counts.sweep()
    assert attempts.earlier("elsewhere").count == 1, "it is not old"
    attempts._counts._ttl = -60.0
    attempts._counts.sweep()

    assert attempts.earlier("elsewhere") == Earlier()
    assert attempts.earlier("here") == Earlier(lease="a")


FORK = """
import os, sys, time
from celery_ha.store.zookeeper import ZooKeeperStore
from celery_ha.model import Node, Holder

store = ZooKeeperStore(sys.argv[1])
store.leases.open(Node("parent", "parent@host"))
if os.fork() == 0:
    store.close_inherited()
    granted = store.locks.acquire("x", Holder("parent", "parent.1", "t"), inherit=1)
    os.write(1, f"child {granted.token is not None}\\n".encode())
    time.sleep(60)
    os._exit(0)
for _ in range(3):
    state = store.leases.renew("parent").state.value
os.write(1, f"parent {state}\\n".encode())
time.sleep(60)
"""


def test_sessions_of_a_dead_parent_end_although_its_child_lives(url, make_store):
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, url], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        lines = {process.stdout.readline().strip() for _ in range(2)}
        assert lines == {"parent open", "child True"}
        store = make_store(url)
        look = store.court.look()
        assert len(set(look.nodes["parent"].connections) & look.present) == 2

        process.kill()
        process.wait(5)

        eventually(lambda: not store.court.look().present, why="the sessions end")
        assert set(store.court.look().nodes) == {"parent"}, "nobody judged it yet"
    finally:
        _kill_group(process)


def _kill_group(process):
    import os

    os.killpg(process.pid, 9)
    process.wait(5)
    process.stdout.close()


def test_child_that_forked_while_a_thread_was_asking_asks_on_its_own(url, make_store):
    import os

    store = make_store(url)
    store.leases.open(Node("a", "a@host"))
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            store.locks.holds("x", HOLDER, 1)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(5):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(read)
                # Not told to forget what it inherited: it finds out.
                with suppress(BaseException):
                    os.write(write, b"no" if store.locks.holds("x", HOLDER, 1) is False else b"?")
                os._exit(0)
            os.close(write)
            assert os.read(read, 2) == b"no"
            os.waitpid(pid, 0)
            os.close(read)
    finally:
        over.set()
        for thread in asking:
            thread.join()
    assert store.leases.renew("a").state is LeaseState.OPEN
