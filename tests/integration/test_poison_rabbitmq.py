"""Messages that kill whoever opens them, on RabbitMQ with ZooKeeper as the store (rule 15)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.command import ask_ha
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene
from tests.support.zookeeper import ZooKeeper


@pytest.mark.timeout(300)
def test_message_that_kills_whoever_receives_it_is_given_up_and_drags_nobody_along(
    make_module_scene: Callable[..., Scene], rabbit: Rabbit, zookeeper_server: ZooKeeper
):
    # Given workers whose tasks may start twice, and two messages that no main process survives to start
    conf = {"ha_store": f"zookeeper://{zookeeper_server.host}/poison", "ha_max_deliveries": 2}
    conf["accept_content"] = ["json", "application/x-deadly"]
    scene = make_module_scene(ttl=2.0, broker=rabbit.url(), PROBE_CONF=json.dumps(conf))
    scene.start(2)
    bombs = [scene.probe.sinister.delay("b").id, scene.probe.order.apply_async(("c",), serializer="deadly").id]
    keys = scene.load(30, 0.02)

    # When the dead workers are replaced
    def given_up() -> list[dict[str, object]]:
        for _ in range(2 - len(scene.live)):
            scene.fleet.start(*scene.options, ready=False)
        letters = ask_ha(scene.probe.app, "dead")["letters"]
        return letters if {letter["task_id"] for letter in letters} >= {*bombs} else []

    letters = eventually(given_up, every=0.3, within=200, why="given up")
    # Then both are given up, after the starts they are allowed
    deliveries = {letter["task_id"]: letter["deliveries"] for letter in letters}
    assert {bomb: deliveries[bomb] for bomb in bombs} == dict.fromkeys(bombs, 2)
    assert all("never came to an end" in letter["reason"] for letter in letters)
    # And nothing else, but what ran beside a killer each time that it may start (G7)

    def others() -> list[dict[str, object]]:
        return [one for one in ask_ha(scene.probe.app, "dead")["letters"] if one["task_id"] not in bombs]

    eventually(lambda: len(others()) == len(scene.ledger.missing(keys)), every=0.3, why="all others ended")
    assert {one["deliveries"] for one in others()} <= {2}
    # Each bomb went off three times unopened, beside two that had a slot and maybe had not begun: two such for each
    assert len(others()) <= 2 * 3 * 2 // 2
