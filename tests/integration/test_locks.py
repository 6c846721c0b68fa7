"""Locks of tasks whose worker, server or child fails at the worst moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.support.scene import Scene
from tests.support.server import RedisServer


def test_lock_whose_release_was_not_answered_is_free_when_its_task_is_acknowledged(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer]
):
    # Given tasks that wait for each other's lock
    server = start_redis()
    scene = make_scene(server, ttl=3.0)
    scene.top_up(2)
    keys = scene.publish("charge", scene.names(scene.batch(), 5), "account", 0.6)
    scene.wait_started(keys, 1)
    # When the server answers nobody while one of them ends
    server.send(signal.SIGSTOP)
    time.sleep(2.0)
    server.send(signal.SIGCONT)
    # Then the others get the lock after it
    scene.settled(keys, within=40)
    assert scene.ledger.overlaps() == []


def test_interrupted_task_takes_its_own_lock_back_before_anybody_else(trio: Scene):
    # Given a task that holds a lock on one worker, and others everywhere that wait for it
    account = trio.batch()
    (first,) = trio.publish("charge", [account + "first"], account, 3.0)
    trio.wait_started([first])
    others = trio.publish("charge", trio.names(account, 6), account, 0.02)
    before = trio.ledger.by_key()[first][0]
    # When its worker is killed
    trio.kill(next(worker for worker in trio.live if worker.name == before.node))
    # Then it is the next to hold the lock, with a higher token, and nobody ever shares it
    trio.settled([first, *others])
    ours = [run for run in trio.ledger.runs() if run.lock == account]
    assert [run.key for run in ours[:2]] == [first, first]
    assert trio.ledger.overlaps(trio.harms) == []


def test_lock_of_a_killed_pool_child_is_free_for_the_next_attempt(trio: Scene):
    # Given a task that holds a lock
    account = trio.batch()
    keys = trio.publish("charge", [account + "first"], account, 1.0)
    trio.wait_started(keys)
    # When the process that runs it is killed
    os.kill(trio.ledger.by_key()[keys[0]][0].pid, signal.SIGKILL)
    keys += trio.publish("charge", trio.names(account, 3), account, 0.02)
    # Then it runs again under its lock, and so do the others
    trio.wait_ended(keys)
    trio.wait_idle()
    assert len(trio.ledger.by_key()[keys[0]]) == 2
    assert len(trio.live) == 3


def test_lock_of_a_pool_child_that_was_killed_while_the_server_was_away_is_free_when_it_is_back(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer]
):
    # Given a task that holds a lock, on a server that keeps its memory
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    scene = make_scene(server, ttl=3.0)
    scene.top_up(1)
    keys = scene.publish("charge", ["first"], "account", 2.0)
    scene.wait_started(keys)
    # When the process that runs it is killed while nobody can be told
    server.stop()
    os.kill(scene.ledger.by_key()["first"][0].pid, signal.SIGKILL)
    server.start()
    # Then its next attempt, and others, get the lock
    keys += scene.publish("charge", ["second", "third"], "account", 0.02)
    scene.wait_ended(keys)
