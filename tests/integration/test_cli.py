"""The command line on a living fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from celery_ha import HA
from celery_ha.cli import ha
from tests.support.fleet import ROOT, eventually
from tests.support.scene import Scene
from tests.support.server import free_port

#: A lease TTL that no stall of a busy machine outlasts.
TTL = 8.0


@pytest.fixture(scope="module")
def shared_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(ttl=TTL)


@pytest.fixture
def duo(shared_scene: Scene) -> Scene:
    """Two live workers, with nothing left of the test before."""
    shared_scene.top_up(2)
    shared_scene.wait_idle()
    assert run(shared_scene, "dead", "drop", "--all", "--yes").exit_code == 0
    return shared_scene


def run(scene: Scene | Celery, *arguments: str, typed: str | None = None) -> Result:
    app = scene if isinstance(scene, Celery) else scene.probe.app
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(ha, arguments, obj=context, input=typed)


def ask(scene: Scene, *arguments: str) -> Any:
    """The JSON of a command that ends well; people see something too."""
    result = run(scene, *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def refused(scene: Scene | Celery, *arguments: str, code: int = 1) -> str:
    """The one line of a command that cannot do what it was asked."""
    result = run(scene, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert isinstance(result.exception, SystemExit)
    if code == 1:
        assert result.stderr.count("\n") == 1
    return result.stderr


def bury(scene: Scene, count: int) -> list[str]:
    """Dead letters that no worker can read, published to a queue each; returns their ids, the newest first."""
    before = {letter["id"] for letter in ask(scene, "dead", "list")["letters"]}
    for _ in range(count):
        scene.probe.app.send_task("tests.support.probe.unheard_of", queue="celery")

    def buried() -> list[str] | None:
        ids = [letter["id"] for letter in ask(scene, "dead", "list")["letters"] if letter["id"] not in before]
        return ids if len(ids) == count else None

    return eventually(buried, every=0.1, why="dead letters")


def test_status(duo: Scene):
    key = duo.publish("work", [duo.batch() + "long"], 4)
    duo.wait_started(key)
    found = ask(duo, "status")
    nodes = {node["name"]: node for node in found["nodes"]}
    assert set(nodes) == {worker.name for worker in duo.live}
    assert found["leader"]["node"] == duo.leader.name
    assert found["leader"]["term"] >= 1
    assert {name for name, node in nodes.items() if node["leader"]} == {duo.leader.name}
    for worker in duo.live:
        node = nodes[worker.name]
        assert (node["state"], node["weight"], node["queues"]) == ("live", 2, ["celery", "orders"])
        assert node["shards"] == len(duo.shards(worker))
        assert node["age"] > 0
    assert sum(node["shards"] for node in nodes.values()) == 12
    assert sum(node["in_flight"] for node in nodes.values()) == 1
    assert found["queues"] == [
        {"queue": "celery", "shards": None, "waiting": 0},
        {"queue": "orders", "shards": 12, "waiting": 0},
    ]
    assert (found["in_line"], found["dead_letters"]) == (0, 0)
    said = run(duo, "status").stdout
    assert f"leader: {duo.leader.name}" in said
    assert "\x1b" not in said


def test_dead_list_and_show(duo: Scene):
    ids = bury(duo, 3)
    listed = ask(duo, "dead", "list", "--limit", "2")
    assert listed["total"] == 3
    assert [letter["id"] for letter in listed["letters"]] == ids[:2]
    letter = listed["letters"][0]
    assert (letter["task"], letter["queue"], letter["deliveries"]) == ("tests.support.probe.unheard_of", "celery", 0)
    assert letter["at"] > 0
    assert letter["reason"]
    shown = ask(duo, "dead", "show", letter["id"])
    assert shown.items() >= letter.items()
    assert shown["argsrepr"] == "()"
    assert ask(duo, "dead", "show", letter["task_id"]) == shown
    assert "1 more" in run(duo, "dead", "list", "--limit", "2").stdout
    assert letter["task_id"] in run(duo, "dead", "show", letter["id"]).stdout


def test_dead_retry_hands_it_to_a_worker_again(duo: Scene):
    first, second = bury(duo, 2)
    assert ask(duo, "dead", "retry", first) == {"retried": 1}

    def back() -> bool:
        letters = ask(duo, "dead", "list")["letters"]
        return len(letters) == 2 and letters[0]["id"] not in (first, second)

    eventually(back, every=0.1, why="the worker gave it up again")
    assert ask(duo, "dead", "retry", "--all") == {"retried": 2}


def test_dead_drop_asks_first(duo: Scene):
    first, second = bury(duo, 2)
    result = run(duo, "dead", "drop", first, typed="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert ask(duo, "dead", "list")["total"] == 2
    assert run(duo, "dead", "drop", first, typed="y\n").stdout == "1 deleted\n"
    assert [letter["id"] for letter in ask(duo, "dead", "list")["letters"]] == [second]
    assert ask(duo, "dead", "drop", "--all", "--yes") == {"dropped": 1}


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_unknown_dead_letter(duo: Scene, command: str):
    assert "no dead letter 'nobody'" in refused(duo, "dead", command, "nobody")


@pytest.mark.parametrize("arguments", [("retry",), ("retry", "x", "--all"), ("drop",), ("list", "--limit", "0")])
def test_usage_of_dead(duo: Scene, arguments: tuple[str, ...]):
    refused(duo, "dead", *arguments, code=2)


def test_an_app_without_ha():
    assert "has no HA" in refused(Celery("bare", broker="redis://127.0.0.1:1/0", set_as_current=False), "status")


def test_a_broker_that_is_down():
    app = Celery("lonely", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    HA(app)
    assert "could not be reached" in refused(app, "status")


def test_a_setting_that_cannot_be_used():
    app = Celery("wrong", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.ha_lease_tll = 3
    HA(app)
    assert "ha_lease_ttl" in refused(app, "status")
