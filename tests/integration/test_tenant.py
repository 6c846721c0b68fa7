"""Locks of processes that are no workers: calls that are interrupted, connections that are cut."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery

from celery_ha import HA, ConfigError, LockBusy
from celery_ha.model import Node, Verdict
from tests.support.fleet import eventually
from tests.support.scene import Scene
from tests.support.server import RedisServer


class Interrupted(Exception):
    """Raised in a thread from outside."""


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def make_app(server: RedisServer) -> Iterator[Callable[[], Celery]]:
    made: list[Celery] = []

    def make() -> Celery:
        app = Celery(f"tenant{len(made)}", broker=server.url, set_as_current=False)
        app.conf.ha_lease_ttl = 4.0
        HA(app)
        made.append(app)
        return app

    yield make
    for app in made:
        app.ha.tenant.close()
        app.close()


class Caller(threading.Thread):
    """Takes a lock and can be interrupted wherever it is."""

    def __init__(self, app: Celery, body: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._app, self._body = app, body
        self.end: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._app.ha.lock("x"):
                self._body()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for us
            self.end = error

    def interrupt(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))


def is_free(app: Celery) -> bool:
    """Asks without standing in line: a line that waits for the quiet time to end needs a worker's sweep."""
    with suppress(LockBusy), app.ha.lock("x", timeout=0):
        return True
    return False


def test_lock_that_is_granted_to_an_interrupted_call_is_free(make_app: Callable[[], Celery]):
    # Given a call that waits for a lock, and an exception that will reach it with its answer
    holder, waiter = make_app(), make_app()
    with holder.ha.lock("x"):
        caller = Caller(waiter, lambda: None)
        eventually(lambda: holder.ha.locks.waiting("x") == 1)
        caller.interrupt()
        # When it is granted the lock
    caller.join(20)
    assert isinstance(caller.end, Interrupted)
    # Then the next one gets it, although the process lives on
    eventually(lambda: is_free(holder), every=0.1)


def test_lock_whose_release_is_interrupted_is_free(make_app: Callable[[], Celery], server: RedisServer):
    # Given a holder that gives its lock back while the server is away
    app = make_app()
    caller = Caller(app, server.stop)
    eventually(lambda: "_release" in _stack(caller))
    # When an exception reaches it before the server is back
    caller.interrupt()
    caller.join(20)
    assert isinstance(caller.end, Interrupted)
    server.start()
    # Then the next one gets it
    other = make_app()
    eventually(lambda: is_free(other), every=0.1)


def test_process_whose_connections_are_cut_keeps_its_lock(make_scene: Callable[..., Scene]):
    # Given a leader that has watched for long enough to judge: another process died and it saw it
    scene = make_scene(ttl=4.0)
    scene.top_up(1)
    script = "import os; from tests.support.probe import app\nwith app.ha.lock('y'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **scene.fleet.environment}, check=False)
    eventually(scene.history)
    tenant = scene.probe.app.ha
    with tenant.lock("x") as lock:
        registered = scene.redis.hget("_ha:conns", lock.holder.lease)
        renewals = scene.redis.hget("_ha:leases", lock.holder.lease)
        eventually(lambda: scene.redis.hget("_ha:leases", lock.holder.lease) != renewals)
        # When all connections of a holder are cut just after a renewal
        for client in scene.redis.client_list():
            if lock.holder.lease in client["name"]:
                scene.redis.client_kill_filter(_id=client["id"])
        # Then it has new ones before anybody takes it for dead
        eventually(lambda: scene.redis.hget("_ha:conns", lock.holder.lease) not in (registered, b""))
        lock.check()
    tenant.tenant.close()
    # And none after its goodbye
    eventually(lambda: not any(lock.holder.lease in client["name"] for client in scene.redis.client_list()))


def test_lock_outside_of_tasks_leaves_the_lease_of_its_worker_alone(make_app: Callable[[], Celery]):
    # Given a process that is a node itself
    app = make_app()
    app.ha.store.leases.open(Node("node", "node@host"))
    session = app.ha.store.court.look().session
    before = app.ha.store.court.look().nodes["node"].connections
    # When it takes a lock outside of any task
    with app.ha.lock("x"):
        # Then the node's connections stay what they are
        app.ha.store.leases.renew("node")
        seen = app.ha.store.court.look()
    assert seen.session == session
    assert seen.nodes["node"].connections == before


def _stack(thread: threading.Thread) -> list[str]:
    frame, names = sys._current_frames().get(thread.ident), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_a_child_that_was_forked_leaves_its_parents_locks_alone(make_app: Callable[[], Celery]):
    # Given a process that holds a lock
    app = make_app()
    with app.ha.lock("x") as lock:
        # When a child of it leaves the block, and then exits as Python programs do
        child = os.fork()
        if child == 0:
            lock.give_back()
            app.ha._tenant.close()
            os._exit(0)
        os.waitpid(child, 0)
        # Then the parent has its lock still
        lock.check()


def test_a_nested_block_of_the_same_lock_does_not_wait_for_itself(make_app: Callable[[], Celery]):
    app = make_app()
    with app.ha.lock("x") as outer, app.ha.lock("x", timeout=5) as inner:
        assert inner.token == outer.token
    with make_app().ha.lock("x", timeout=5):
        pass


def test_a_lock_that_was_released_in_its_block_is_no_error_at_the_end(make_app: Callable[[], Celery]):
    with make_app().ha.lock("x") as lock:
        assert lock.release()


@pytest.mark.parametrize("terms", [{"limit": 0}, {"max_hold": 0}, {"on_lost": "weep"}, {"timeout": -1}])
def test_terms_that_cannot_be_used_are_refused(make_app: Callable[[], Celery], terms: dict):
    with pytest.raises(ConfigError), make_app().ha.lock("x", **terms):
        pass


def test_who_waits_is_served_when_max_hold_is_over_though_no_worker_sweeps(make_app: Callable[[], Celery]):
    with make_app().ha.lock("x", max_hold=0.3, on_lost="flag"), make_app().ha.lock("x", timeout=30) as second:
        assert second.token


def test_a_process_that_was_given_up_takes_locks_under_a_new_lease(make_app: Callable[[], Celery]):
    # Given a process whose lease is fenced without its knowing yet
    app, judge = make_app(), make_app().ha.store
    with app.ha.lock("before"):
        pass
    old = app.ha.tenant.lease
    judge.leases.open(Node("judge", "judge@host", ttl=60.0))
    term = judge.court.elect("judge")
    eventually(lambda: _fence(judge, term, old))
    # When it asks for a lock
    with app.ha.lock("x") as lock:
        # Then it gets it
        assert lock.holder.lease != old
    judge.leases.close("judge", clean=True)


def _fence(judge: Any, term: int, lease: str) -> bool:
    look = judge.court.look()
    return judge.court.fence(term, "judge", Verdict(lease, "test", look.counters[lease], look.nodes[lease].connections))
