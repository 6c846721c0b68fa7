"""Locks of processes that are no workers, when a call for them is interrupted."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from celery import Celery

from celery_ha import HA, LockBusy
from tests.support.fleet import eventually
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
        except BaseException as error:
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


def _stack(thread: threading.Thread) -> list[str]:
    frame, names = sys._current_frames().get(thread.ident), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names
