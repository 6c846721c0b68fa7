"""Every kind of pool: it works, and what its worker held is recovered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.scene import Scene

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
