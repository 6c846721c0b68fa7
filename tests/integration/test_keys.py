"""What is left in Redis when everybody has gone."""

from __future__ import annotations

import signal
from collections.abc import Callable

from celery_ha.store.redis import PERMANENT
from tests.support.fleet import eventually
from tests.support.leaks import BROKER_PERMANENT, KOMBU, leaks
from tests.support.scene import Scene, wait_exit

#: What only exists while a worker does, also of what is called permanent.
OF_THE_LIVING = ("leases", "nodes", "conns", "open", "owners", "leader", "fenced")


def test_closed_fleet_leaves_no_key_without_an_owner_or_a_ttl(make_scene: Callable[..., Scene]):
    # Given workers that ran all kinds of tasks, one of which died, and that left one after the other
    scene = make_scene()
    scene.top_up(3)
    keys = scene.load(60, 0.02)
    keys += scene.publish("charge", scene.names("charge-", 20), "account", 0.01)
    keys += scene.publish("order", scene.names("eta-", 10), 0, countdown=1)
    scene.wait_started(keys, 20)
    scene.kill(scene.live[0])
    scene.settled(keys)
    eventually(lambda: len(scene.nodes()) == 2, why="the dead one was fenced")
    leavers = scene.live
    for worker in leavers:
        worker.send(signal.SIGTERM)
    wait_exit(leavers)
    # Then no key is left but those that go by themselves and the documented permanent ones
    assert leaks(scene) == []
    lasting = {key.decode() for key in scene.redis.scan_iter("*") if scene.redis.ttl(key) == -1}
    documented = {f"_ha:{name}" for name in (*PERMANENT, *BROKER_PERMANENT)}
    assert {key for key in lasting if not key.startswith(KOMBU)} <= documented
    # And nothing of the living
    assert lasting & {f"_ha:{name}" for name in OF_THE_LIVING} == set()


def test_many_short_lives_leave_nothing_behind_that_grows(make_scene: Callable[..., Scene]):
    # Given workers that come and go, each of them with some work
    scene = make_scene(ttl=2.0, options=("-Q", "orders,celery", "-P", "solo", "--without-gossip", "--without-mingle"))
    sizes = []
    for _ in range(2):
        crew = scene.top_up(3)
        scene.settled(scene.load(20, 0))
        scene.kill(crew[0])
        scene.settled(scene.load(10, 0))
        eventually(lambda: len(scene.nodes()) == 2, why="the dead one was fenced")
        for worker in crew[1:]:
            worker.send(signal.SIGTERM)
        wait_exit(crew)
        sizes.append(len([key for key in scene.redis.scan_iter("*") if scene.redis.ttl(key) == -1]))
    # Then the number of lasting keys does not depend on how many there were
    assert sizes[0] == sizes[-1]
