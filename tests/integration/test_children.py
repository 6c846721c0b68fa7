"""Pool children lost in every way: the task comes again, its lock is free, and the worker goes on."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.fleet import eventually
from tests.support.scene import BOTH, Scene

#: Seconds within which the task of a lost child starts again: its worker lives and need not be judged.
AGAIN = 2.0


@pytest.fixture(scope="module")
def single_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    # A task that comes back at once may be hit by every blow of a row: that makes no poison task of it.
    return make_module_scene(results=True, PROBE_CONF='{"ha_max_deliveries": 20}')


@pytest.fixture
def single(single_scene: Scene) -> Scene:
    """One live worker with two children."""
    single_scene.top_up(1)
    single_scene.wait_idle()
    return single_scene


@pytest.mark.parametrize("way", ["exit", "segfault", "oom"])
def test_lost_child_costs_its_task_one_attempt_and_frees_its_lock(single: Scene, way: str):
    # Given a locked task whose process is lost at the first attempt, and others at work
    keys = single.load(20, 0.02)
    key = single.batch() + way
    result = single.probe.fatal.delay(key, way, 1)
    # Then the second attempt has the lock, with a higher token, and comes to its end soon
    single.wait_ended([*keys, key])
    first, second = single.ledger.by_key()[key]
    assert second.start - first.start < AGAIN
    assert result.get(timeout=10) == key
    # And nothing else ran twice, nothing is stuck, nothing was given up
    single.wait_idle()
    assert single.ledger.reruns(keys) == set()
    assert single.hash("dead") == {}
    single.settled(single.publish("charge", [key + "next"], key, 0))


def test_hard_time_limit_ends_a_task_once_and_frees_its_lock(single: Scene):
    key = single.batch()
    # Given a locked task that its worker kills
    result = single.probe.fatal.apply_async((key, "hang"), time_limit=1)
    eventually(result.ready, why="a failure")
    assert "TimeLimitExceeded" in repr(result.result)
    # Then it is over, and the next of its kind has the lock
    single.settled(single.publish("charge", [key + "next"], key, 0))
    assert len(single.ledger.by_key()[key]) == 1
    single.settled(single.load(10, 0))


@pytest.mark.parametrize("limit", [("--max-tasks-per-child", "2"), ("--max-memory-per-child", "1")])
def test_children_that_retire_lose_nothing_and_run_nothing_twice(
    make_scene: Callable[..., Scene], limit: tuple[str, str]
):
    # Given a worker whose children are replaced all the time, and tasks that wait in it
    scene = make_scene(options=(*BOTH, *limit), PROBE_PREFETCH="4")
    scene.top_up(1)
    keys = scene.load(16, 0.01)
    charged = scene.publish("charge", scene.names("charge", 8), "account", 0.01)
    # Then each task runs once, under locks too
    scene.settled([*keys, *charged])
    assert scene.ledger.reruns([*keys, *charged]) == set()
    assert scene.ledger.overlaps([]) == []
    assert len({run.pid for run in scene.ledger.runs()}) > 4


def test_task_whose_lost_child_shall_not_be_repeated_fails_and_frees_its_lock(make_scene: Callable[..., Scene]):
    scene = make_scene(results=True, PROBE_CONF=json.dumps({"task_reject_on_worker_lost": False}))
    scene.top_up(1)
    result = scene.probe.fatal.delay("alone", "exit")
    eventually(result.ready, why="a failure")
    assert "WorkerLostError" in repr(result.result)
    scene.settled(scene.publish("charge", ["next"], "alone", 0))
    assert len(scene.ledger.by_key()["alone"]) == 1


def test_children_killed_one_after_the_other_under_load_leave_nothing_stuck(single: Scene):
    # Given a worker at work
    (worker,), chance = single.live, random.Random(7)
    with single.stream(every=0.01, seconds=0.02) as keys:
        for count in range(5, 125, 10):
            single.wait_started(keys, count)
            # When its children are killed, whatever they are doing
            with suppress(ProcessLookupError):
                os.kill(chance.choice(worker.children()), signal.SIGKILL)
    # Then everything comes to its end, and only what was cut off ran again
    single.wait_ended(keys)
    single.wait_idle()
    assert len(single.ledger.reruns(keys)) <= 12
    assert single.hash("dead") == {}
    assert worker.alive
