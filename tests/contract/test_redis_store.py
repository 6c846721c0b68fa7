"""What only a real server can show: restarts, refusals, forks and the ways to reach it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import pytest
import redis

from celery_ha.attempts.base import Attempt, Started
from celery_ha.attempts.redis import RedisAttempts
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.redis import RedisBroker
from celery_ha.errors import ConfigError, SchemaError, StoreError, StoreUnavailable
from celery_ha.model import Holder, LeaseState, Node, Verdict
from celery_ha.store.redis import RedisStore
from celery_ha.store.redis import link as link_module
from celery_ha.store.redis.url import dial_url
from tests.support.fleet import eventually

pytestmark = pytest.mark.contract


@pytest.fixture
def admin(redis_server):
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(redis_server, admin):
    made = RedisStore(redis_server.url, timeout=1.0)
    yield made
    made.close()


def test_an_answer_in_resp3_is_read_all_the_same(redis_server, admin):
    store = RedisStore(redis_server.url + "?protocol=3&decode_responses=True")
    store.leases.open(Node("a", "a@host"))

    assert store.leases.renew("a").state is LeaseState.OPEN
    assert len(store.court.look().present) == 2
    store.close()


def test_a_flushed_script_is_loaded_again(store, admin):
    store.leases.open(Node("a", "a@host"))
    admin.script_flush()

    assert store.leases.renew("a").state is LeaseState.OPEN


def test_server_that_forgets_its_scripts_all_the_time_does_what_it_is_told(redis_server, admin, monkeypatch):
    """Between a LOAD and an EVALSHA it may forget again: a task failed with "No matching script"."""
    store = RedisStore(redis_server.url, timeout=1.0)
    broker = RedisBroker(Forgetful.from_url(redis_server.url), Layout())
    exchange = link_module.Link._exchange

    def forget_first(link, commands):
        admin.script_flush()
        return exchange(link, commands)

    monkeypatch.setattr(link_module.Link, "_exchange", forget_first)
    store.leases.open(Node("a", "a@host"))
    holder = Holder("a", "a.1", "task")
    token = store.locks.acquire("lock", holder, limit=1, inherit=60.0).token
    assert store.locks.release("lock", holder, token)
    assert store.leases.renew("a").state is LeaseState.OPEN
    question = RedisAttempts(store).question()
    question.ask("a", [Attempt("a.1", "message", "task", "orders")], ())
    admin.script_flush()
    assert question.answer() == [Started.YES]
    question.close()
    assert broker.join("a")
    assert broker.settle("a", ())
    store.close()


class Forgetful(redis.Redis):
    """A client of a server that forgets its scripts before every command."""

    def execute_command(self, *args, **options):
        super().execute_command("SCRIPT FLUSH")
        return super().execute_command(*args, **options)


def test_a_full_server_fences_nobody(store, admin):
    """It refuses renewals, so a counter that stands still proves nothing there."""
    store.leases.open(Node("a", "a@host"))
    store.leases.open(Node("b", "b@host"))
    term = store.court.elect("a")
    look = store.court.look()
    verdict = Verdict("b", "renewals stood still", look.counters["b"], look.nodes["b"].connections)
    admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            store.leases.renew("b")
        with pytest.raises(StoreUnavailable):
            store.court.fence(term, "a", verdict)
    finally:
        admin.config_set("maxmemory", 0)

    assert store.leases.renew("b").state is LeaseState.OPEN


def test_a_prefix_keeps_two_installations_apart(redis_server, admin, store):
    other = RedisStore(redis_server.url, prefix="other:")
    store.leases.open(Node("a", "a@host"))

    assert other.leases.renew("a").state is LeaseState.UNKNOWN
    other.leases.open(Node("b", "b@host"))
    assert all(key.startswith((b"_ha:", b"other:")) for key in admin.scan_iter())
    other.close()


def test_a_record_of_an_unknown_schema_is_refused_with_a_sentence(store, admin):
    store.leases.open(Node("a", "a@host"))
    admin.hset("_ha:nodes", "b", '{"schema":99}')

    admin.incr("_ha:version")
    with pytest.raises(SchemaError, match="upgrade this node"):
        store.court.look()


def test_a_server_that_is_not_there_is_unavailable():
    store = RedisStore("redis://127.0.0.1:1/0", timeout=0.2)

    with pytest.raises(StoreUnavailable):
        store.leases.renew("a")


def test_a_stalled_server_is_unavailable_after_the_timeout_and_its_late_reply_is_not_taken_for_another(store, admin):
    store.leases.open(Node("a", "a@host"))
    store._a._drop()
    stalled = RedisStore(f"redis://127.0.0.1:{admin.connection_pool.connection_kwargs['port']}/0", timeout=0.1)
    stalled.leases.open(Node("b", "b@host"))
    admin.execute_command("CLIENT", "PAUSE", 400, "ALL")

    with pytest.raises(StoreUnavailable):
        stalled.leases.renew("b")
    import time

    time.sleep(0.5)
    assert stalled.leases.renew("b").state is LeaseState.OPEN
    stalled.close()


def test_an_observer_that_may_not_list_connections_says_it_cannot_see_them(redis_server, admin, caplog):
    admin.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-client|list"])
    url = redis_server.url.replace("://", "://blind:x@")
    store = RedisStore(url)
    seeing = RedisStore(redis_server.url)
    seeing.leases.open(Node("b", "b@host"))

    store.leases.open(Node("a", "a@host"))

    look = store.court.look()
    assert look.present is None
    assert look.nodes["a"].connections == ()
    assert len([r for r in caplog.records if "watch connections" in r.message]) == 1
    store.leases.renew("a")
    store.court.look()
    assert len([r for r in caplog.records if "judges by the TTL" in r.message]) == 1
    store.close()
    seeing.close()
    admin.acl_deluser("blind")


def test_a_connection_id_reused_after_a_restart_is_not_taken_for_the_registered_one(store, admin):
    store.leases.open(Node("a", "a@host"))
    admin.hset("_ha:conns", "a", f"{admin.client_id()} 999999")

    assert store.court.look().present == frozenset()


def test_a_new_server_run_grants_nothing_for_a_ttl(start_redis):
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(server.url)
    store.leases.open(Node("a", "a@host", ttl=0.5))
    assert store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1).token is not None
    session = store.court.look().session

    server.stop()
    with pytest.raises(StoreUnavailable, match=r"cannot connect|did not answer"):
        store.locks.acquire("y", Holder("a", "a.1", "t"), inherit=1)
    server.start()

    assert store.leases.renew("a").state is LeaseState.OPEN, "an open lease is re-asserted by its renewal"
    again = store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1)
    assert again.again
    assert store.locks.acquire("y", Holder("a", "a.1", "t"), inherit=1).token is None
    with pytest.raises(StoreUnavailable):
        store.court.look()
    assert store.court.look().session.partition("/")[0] != session.partition("/")[0]
    import time

    time.sleep(0.6)
    assert store.locks.acquire("y", Holder("a", "a.1", "t"), inherit=1).token is not None
    store.close()
    server.close()


def test_a_replica_that_took_over_without_the_last_change_is_seen_as_it_is(store, admin):
    """It counts as many changes as the master did, and they are others."""
    store.leases.open(Node("a", "a@host"))
    store.leases.open(Node("b", "b@host"))
    assert store.court.look().nodes.keys() == {"a", "b"}
    # Given a server with the same count of changes, where another one joined, as its clients find it after a failover
    record = admin.hget("_ha:nodes", "b")
    admin.hdel("_ha:nodes", "b")
    admin.hset("_ha:nodes", "c", record.replace(b"b@host", b"c@host"))
    admin.client_kill_filter(_type="normal", skipme=True)
    # When an observer has connected to it
    eventually(lambda: _looks(store), why="connected again")
    assert store.court.look().nodes.keys() == {"a", "c"}


def test_changes_after_lost_ones_are_not_counted_by_the_same_numbers(store, admin):
    """Else who has seen the lost ones takes the new ones for them, until as many have been made."""
    for number in range(5):
        store.leases.open(Node(f"n{number}", f"n{number}@host"))
    version, seen = int(admin.get("_ha:version")), store.court.look().version
    # Given a server that took over without the last three changes
    admin.set("_ha:version", version - 3)
    # When there are as many again
    known = set()
    for number in range(3):
        store.leases.open(Node(f"m{number}", f"m{number}@host"))
        known.add(store.court.look().version)
    # Then each is known for another
    assert len(known) == 3
    assert min(known) > seen


def _looks(store) -> bool:
    try:
        return bool(store.court.look())
    except StoreUnavailable:
        return False


def test_a_grant_without_its_replica_is_not_given(redis_server, admin):
    store = RedisStore(redis_server.url, replicas=1, timeout=1.0)
    store.leases.open(Node("a", "a@host"))
    store.leases.open(Node("b", "b@host"))
    term = store.court.elect("a")
    look = store.court.look()

    with pytest.raises(StoreUnavailable, match="0 of 1"):
        store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1)
    with pytest.raises(StoreUnavailable, match="0 of 1"):
        store.court.fence(term, "a", Verdict("b", "r", look.counters["b"], look.nodes["b"].connections))
    store.close()


def test_a_client_factory_lends_its_settings(redis_server, admin):
    store = RedisStore(lambda: redis.Redis.from_url(redis_server.url, decode_responses=True))

    store.leases.open(Node("a", "a@host"))

    assert store.leases.renew("a").state is LeaseState.OPEN
    store.close()


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_socket_reaches_the_server(redis_server, admin, scheme):
    option = "db" if scheme == "unix" else "virtual_host"
    store = RedisStore(f"{scheme}://{redis_server.folder}/redis.sock?{option}=3")

    store.leases.open(Node("a", "a@host"))

    assert store.leases.renew("a").state is LeaseState.OPEN
    assert redis.Redis.from_url(redis_server.url[:-1] + "3").exists("_ha:leases")
    store.close()


def test_sentinel_finds_the_master(start_redis):
    master = start_redis()
    sentinel = subprocess_sentinel(master)
    try:
        store = RedisStore(
            f"sentinel://127.0.0.1:{sentinel.port};sentinel://127.0.0.1:1/2", master_name="shop", replicas=0
        )
        store.leases.open(Node("a", "a@host"))

        assert store.leases.renew("a").state is LeaseState.OPEN
        assert redis.Redis.from_url(master.url[:-1] + "2").exists("_ha:leases")
        store.close()
    finally:
        sentinel.stop()


def subprocess_sentinel(master):
    import socket
    import time

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = master.folder / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {master.port} 1\n")
    process = subprocess.Popen([master.binary, str(config), "--sentinel"], stdout=subprocess.DEVNULL)

    class Sentinel:
        def stop(self):
            process.terminate()
            process.wait(5)

    made = Sentinel()
    made.port = port
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.02)
    return made


def test_sentinel_without_a_master_name_is_refused():
    with pytest.raises(ConfigError, match="master_name"):
        dial_url("sentinel://localhost", timeout=1)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="cannot be used"):
        dial_url("amqp://localhost", timeout=1)


def test_a_script_error_is_not_taken_for_an_outage(store, admin):
    admin.set("_ha:leases", "not a hash")

    with pytest.raises(StoreError):
        store.leases.renew("a")
    admin.flushall()


FORK = """
import os, sys, time
from celery_ha.store.redis import RedisStore
from celery_ha.store.redis import link as link_module
from celery_ha.model import Node, Holder

store = RedisStore(sys.argv[1])
store.leases.open(Node("parent", "parent@host"))
store.locks.holds("x", Holder("parent", "parent.1", "t"), 1)
if os.fork() == 0:
    store.close_inherited()
    granted = store.locks.acquire("x", Holder("parent", "parent.1", "t"), inherit=1)
    os.write(1, f"child {granted.token is not None}\\n".encode())
    time.sleep(30)
    os._exit(0)
os.write(1, f"parent {store.leases.renew('parent').state.value}\\n".encode())
time.sleep(30)
"""


def test_the_connections_of_a_dead_parent_close_although_its_child_lives(redis_server, admin, store):
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, redis_server.url], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        lines = {process.stdout.readline().strip() for _ in range(2)}
        assert lines == {"parent open", "child True"}
        store.leases.open(Node("observer", "observer@host"))
        assert len(set(store.court.look().nodes["parent"].connections) & store.court.look().present) == 2

        process.kill()
        process.wait(5)

        import time

        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            look = store.court.look()
            if not set(look.nodes["parent"].connections) & look.present:
                break
            time.sleep(0.02)
        assert not set(look.nodes["parent"].connections) & look.present
    finally:
        os.killpg(process.pid, 9)
        process.stdout.close()


def test_a_caller_keeps_its_place_over_a_server_that_was_away_for_longer_than_it_may_be_silent(store, admin):
    # Given two that stand in line for a lock
    store.leases.open(Node("a", "a@host"))
    held = store.locks.acquire("x", Holder("a", "a.1", "t1"), inherit=1)
    got: list[tuple[str, int | None]] = []

    def wait(number: int) -> None:
        holder = Holder("a", f"a.{number}", f"t{number}")
        grant = store.locks.acquire("x", holder, inherit=1, wait=30)
        got.append((holder.task, grant.token))
        store.locks.release("x", holder, grant.token or 0)

    threads = [threading.Thread(target=wait, args=(number,)) for number in (2, 3)]
    for place, thread in enumerate(threads, 1):
        thread.start()
        eventually(lambda place=place: store.locks.waiting("x") == place)
    # When the time of the first one passes unheard
    (first, _) = admin.lrange("_ha:line:x", 0, -1)
    ask = first[-16:].decode()
    assert admin.delete(f"_ha:here:{ask}")
    # Then it says that it is there all the same, and has its turn first
    eventually(lambda: admin.exists(f"_ha:here:{ask}"))
    assert store.locks.release("x", Holder("a", "a.1", "t1"), held.token)
    for thread in threads:
        thread.join(30)
    assert [task for task, _ in got] == ["t2", "t3"]


def test_call_that_is_interrupted_anywhere_leaves_no_answer_to_the_next(store, admin):
    """A time limit, or the loss of a lock, is raised in a thread wherever it happens to be."""
    link = store._a
    link.call(("PING",))
    at = interrupted = 0
    while interrupted == at:
        at += 1
        interrupted += _interrupt(lambda: link.call(("ECHO", "first")), at)
        assert link.call(("ECHO", "second")) == [b"second"], at
    assert interrupted > 5


def _interrupt(call, at) -> bool:
    """Raise something at the line of the link's own code that is come to as the ``at``-th; whether there is one."""
    lines = itertools.count(1)

    def trace(frame, event, arg):
        if frame.f_code.co_filename != link_module.__file__:
            return None
        if event == "line" and next(lines) == at:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
