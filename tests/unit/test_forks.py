"""What a child inherits from a thread that was making a TLS connection: nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from celery_ha import forks
from celery_ha.brokers.transport import ClaimingChannel, ClaimingSentinelChannel
from celery_ha.forks import HANDSHAKES, minding_forks
from tests.support.fleet import eventually

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Handshake(SSLConnection):
    """Takes until it is let go."""

    entered, released = threading.Event(), threading.Event()

    def connect(self) -> None:
        self.entered.set()
        assert self.released.wait(60)


@pytest.fixture
def shaking() -> Iterator[threading.Thread]:
    """A thread in the middle of one."""
    Handshake.entered.clear()
    Handshake.released.clear()
    thread = threading.Thread(target=minding_forks(Handshake)().connect)
    thread.start()
    assert Handshake.entered.wait(30)
    yield thread
    Handshake.released.set()
    thread.join()


def forked(body: Callable[[], bool]) -> bool:
    """What a child says."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if body() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_fork_waits_for_a_connection_that_is_being_made(shaking):
    threading.Timer(0.2, Handshake.released.set).start()
    assert forked(Handshake.released.is_set), "the child was forked in the middle"


def test_connection_that_hangs_costs_a_fork_its_time_once(shaking, monkeypatch):
    """A pool may lose many children while the network is away, and its loop does nothing meanwhile."""
    monkeypatch.setattr(forks, "PATIENCE", 0.3)
    waited: list[float | None] = []
    wait = HANDSHAKES._changed.wait
    monkeypatch.setattr(HANDSHAKES._changed, "wait", lambda seconds=None: waited.append(seconds) or wait(seconds))
    for _ in range(5):
        HANDSHAKES.before_fork()
        HANDSHAKES.after_fork()
    assert sum(filter(None, waited)) < 0.6


def test_command_that_connects_again_by_itself_is_minded_too(monkeypatch):
    """redis-py repeats a command on a new connection without asking ``connect``."""
    seen: list[bool] = []

    def refuse(_self: SSLConnection) -> None:
        seen.append(threading.get_ident() in HANDSHAKES._makers)
        raise ConnectionError("nobody there")

    monkeypatch.setattr(SSLConnection, "_connect", refuse)
    with pytest.raises((ConnectionError, RedisError)):
        minding_forks(SSLConnection)(retry=Retry(NoBackoff(), 0)).send_command("PING")
    assert seen
    assert all(seen)
    assert not HANDSHAKES._makers


def test_fork_that_was_not_asked_for_leaves_nothing_behind():
    """A host may call only the hooks that come after it."""
    HANDSHAKES.after_fork()
    with HANDSHAKES.making():
        pass
    HANDSHAKES.before_fork()
    HANDSHAKES.after_fork()


def test_fork_does_not_wait_for_ever_and_the_child_may_connect(shaking, monkeypatch):
    # Given one that takes longer than anybody waits
    monkeypatch.setattr(forks, "PATIENCE", 0.1)

    def connects() -> bool:
        Handshake.released.set()
        minding_forks(Handshake)().connect()
        return not HANDSHAKES._makers

    assert forked(connects)
    # Then it goes on here
    assert shaking.is_alive()
    assert len(HANDSHAKES._makers) == 1


def test_connection_that_is_begun_while_a_fork_waits_is_made_after_it(shaking, monkeypatch):
    """Otherwise a fork might never see a moment without one."""
    monkeypatch.setattr(forks, "PATIENCE", 60.0)
    made = threading.Event()

    def begin() -> None:
        eventually(lambda: HANDSHAKES._forks, why="a fork waits")
        threading.Timer(0.1, Handshake.released.set).start()
        with HANDSHAKES.making():
            made.set()

    newcomer = threading.Thread(target=begin)
    newcomer.start()
    HANDSHAKES.before_fork()
    assert not made.is_set()
    HANDSHAKES.after_fork()
    assert made.wait(30)
    newcomer.join()


def test_who_forks_while_it_connects_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(forks, "PATIENCE", 60.0)
    with HANDSHAKES.making():
        began = time.monotonic()
        assert forked(lambda: True)
        assert time.monotonic() - began < forks.PATIENCE
    assert not HANDSHAKES._makers


def test_every_tls_connection_to_redis_is_minded():
    assert minding_forks(Connection) is Connection
    for channel, plain in (
        (ClaimingChannel, kombu_redis.Channel),
        (ClaimingSentinelChannel, kombu_redis.SentinelChannel),
    ):
        assert channel.connection_class_ssl is not plain.connection_class_ssl
        assert issubclass(channel.connection_class_ssl, plain.connection_class_ssl)
