"""Every kind of pool: it works, and what its worker held is recovered."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median

import pytest

from tests.support.fleet import eventually
from tests.support.scene import Scene
from tests.support.server import RedisServer

QUEUES = ("-Q", "orders,celery", "--without-gossip", "--without-mingle")
POOLS = {
    "threads": ("-P", "threads", "-c", "3"),
    "solo": ("-P", "solo"),
    "gevent": ("-P", "gevent", "-c", "5"),
}


@pytest.mark.parametrize("pool", POOLS)
def test_killed_worker_of_any_pool_loses_nothing(make_scene: Callable[..., Scene], pool: str):
    # Given two workers of this pool under load, with locked tasks too
    scene = make_scene(options=(*QUEUES, *POOLS[pool]), PROBE_PREFETCH="4")
    victim, survivor = scene.top_up(2)
    keys = scene.load(60, 0.05)
    keys += scene.publish("charge", scene.names("charge-", 10), "account", 0.02)
    scene.wait_started(keys, 15)
    assert {run.node for run in scene.ledger.runs()} == {victim.name, survivor.name}
    # When one is killed
    scene.kill(victim)
    # Then the other runs all that is left, one at a time what has one lock
    scene.settled(keys)
    assert scene.ledger.overlaps(scene.harms) == []


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_what_is_due_and_has_no_slot_has_not_started(make_scene: Callable[..., Scene], pool: str):
    # Given a worker that holds many tasks with an ETA, which come to be due at once
    scene = make_scene(options=(*QUEUES, "-P", pool, "-c", "2"))
    (victim,) = scene.top_up(1)
    keys = scene.publish("work", scene.names("work-", 12), 3.0, countdown=2)
    scene.wait_started(keys, 2)
    # When it is killed while they run, and another one comes
    scene.kill(victim)
    scene.top_up(1)
    # Then only what ran is counted as an attempt
    (recovered,) = eventually(scene.history)
    assert recovered["recovered"]["restarted"] == 2
    scene.settled(keys)


@pytest.mark.parametrize("pool", POOLS)
def test_task_that_would_end_its_process_takes_no_slot_with_it(make_scene: Callable[..., Scene], pool: str):
    # Given a worker of this pool, and more tasks that raise SystemExit in their first attempt than it has slots
    scene = make_scene(options=(*QUEUES, *POOLS[pool]))
    (worker,) = scene.top_up(1)
    keys = scene.publish("fatal", scene.names("fatal-", 7), "leave", 1)
    # Then each counts as an attempt, as if its process were gone, and all that is left to do is done
    keys += scene.publish("work", scene.names("work-", 5), 0.01)
    scene.wait_ended(keys)
    scene.wait_idle()
    assert worker.alive
    assert scene.history() == []


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_next_task_starts_as_soon_after_an_early_ack_as_after_a_late_one(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer], pool: str
) -> None:
    """Only a late ack has something to send when a task ends; the loop must hear of the free slot all the same."""
    between = {}
    for late in (True, False):
        options = (*QUEUES, "-P", pool, "-c", "2")
        scene = make_scene(start_redis(), options=options, PROBE_CONF=json.dumps({"task_acks_late": late}))
        scene.top_up(1)
        keys = scene.publish("work", scene.names("work-", 20), 0.05)
        scene.wait_ended(keys)
        starts = sorted(run.start for run in scene.ledger.runs())
        between[late] = median(later - start for start, later in zip(starts, starts[2:], strict=False))
    assert between[False] < 4 * between[True]
