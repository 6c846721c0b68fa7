"""The leader killed in the middle of recovering another worker, after each step: the next one finishes it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.fleet import eventually
from tests.support.ledger import Harm
from tests.support.mortal import RECOVERY
from tests.support.scene import DYING, Scene


@pytest.mark.parametrize("step", RECOVERY)
def test_leader_killed_in_the_middle_of_a_recovery_is_followed_by_one_that_finishes_it(
    make_scene: Callable[..., Scene], step: str
):
    # Given a leader that will not survive that step, a victim and a third, all at work, under locks too
    scene = make_scene(PROBE_PREFETCH="4")
    (leader,) = scene.start(1, PROBE_DIES_AFTER=step)
    eventually(lambda: scene.leader is leader, why="it leads")
    victim, third = scene.start(2)
    eventually(lambda: len(scene.nodes()) == 3, why="registered")
    eventually(lambda: scene.shards(victim), why="it has shards")
    keys = scene.load(60, 0.1) + scene.publish("charge", scene.names("charge-", 9), "account", 0.1)
    held = scene.publish("order", scene.keys_on(scene.shards(victim), 4), 0.5)
    eventually(lambda: any(run.key in held and run.end is None for run in scene.ledger.runs()), why="it runs one")
    leases = {scene.node(worker).lease for worker in (victim, leader)}
    # When the victim is killed, and with it, a moment later, who recovers it
    scene.kill(victim)
    eventually(lambda: not leader.alive, why="the leader dies at that step")
    scene.harms.append(Harm(leader.name, time.time(), DYING))
    # Then the third leads, recovers both, and runs all there is
    scene.settled(keys + held)
    assert scene.live == [third]
    assert scene.leader is third
    assert leases <= scene.fenced()
    assert scene.ledger.overlaps(scene.harms) == []
