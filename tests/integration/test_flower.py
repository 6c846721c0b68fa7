"""Flower's HA tab on a living fleet: in a browser, and its JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import chromium, chromium_binary, opened
from tests.support.command import ask_ha
from tests.support.dashboard import Dashboard, dashboard
from tests.support.fleet import eventually, fleet
from tests.support.form import check_form, form_of
from tests.support.missing import missing
from tests.support.rabbit import Rabbit
from tests.support.scene import BOTH, PROBE, Scene
from tests.support.server import RedisServer
from tests.support.zookeeper import ZooKeeper

NOUNS = ("status", "ring", "locks", "dead", "failovers", "beat")
PATHS = ("/ha", "/ha/data", "/ha/static/ha.js", "/ha/static/ha.css", *(f"/api/ha/{noun}" for noun in NOUNS))
#: Seconds in which a death must be seen.
SEEN = 5.0
#: Where pictures for the documentation go; unset: nowhere.
PICTURES = os.environ.get("HA_PICTURES", "")


@pytest.fixture(scope="module")
def shared_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    """Its workers tell Flower of their tasks."""
    return make_module_scene(ttl=3.0, options=(*BOTH, "-E"))


@pytest.fixture
def flower(shared_scene: Scene, tmp_path: Path) -> Iterator[Callable[..., Dashboard]]:
    """Start a Flower, which is none of the scene's workers."""
    with fleet(tmp_path, **shared_scene.fleet.environment) as programs:
        yield lambda *options, **more: dashboard(programs, *options, **more)


@pytest.fixture(scope="module")
def shared_flower(shared_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with fleet(tmp_path_factory.mktemp("flower"), **shared_scene.fleet.environment) as programs:
        yield dashboard(programs)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    binary = chromium_binary()
    if binary is None:
        missing("no Chromium or no playwright here")
    with chromium(binary) as browser:
        yield browser


def bury(scene: Scene) -> str:
    """A dead letter; returns its id."""
    before = {letter["id"] for letter in ask_ha(scene.probe.app, "dead")["letters"]}
    scene.probe.app.send_task(f"{PROBE}.unheard_of", queue="celery")

    def found() -> str | None:
        letters = ask_ha(scene.probe.app, "dead")["letters"]
        return next((letter["id"] for letter in letters if letter["id"] not in before), None)

    return eventually(found, every=0.1, why="a dead letter")


def watched(scene: Scene) -> None:
    """Until the leader has watched for a TTL: before that it judges nobody."""

    def age() -> float:
        nodes = ask_ha(scene.probe.app, "status")["nodes"]
        return next((node["age"] for node in nodes if node["leader"]), 0.0)

    eventually(lambda: age() > 1.5 * scene.ttl, every=0.2, why="the leader has watched")


@pytest.mark.parametrize(("theme", "prefix"), [("light", ""), ("dark", "/tools/flower")])
def test_a_death_is_seen_and_a_dead_letter_retried(shared_scene: Scene, flower, browser, theme: str, prefix: str):
    scene = shared_scene
    workers = scene.top_up(3)
    letter = bury(scene)
    watched(scene)
    dash = flower(prefix=prefix)
    victim = next(worker for worker in workers if worker is not scene.leader)
    with opened(browser, f"{dash.url}/workers", theme=theme) as page:
        # Given the tab, opened by its link in Flower's navigation
        page.click("nav >> text=HA")
        page.wait_for_selector(f"#ha-nodes tr[data-node='{victim.name}'][data-state=live]")
        assert page.evaluate("document.documentElement.dataset.bsTheme") == theme
        assert page.locator("path[data-shard]").count() == 12
        own = {
            shard.get_attribute("data-shard") for shard in page.query_selector_all(f"path[data-node='{victim.name}']")
        }
        assert own == set(scene.shards(victim))
        # And tasks that the victim runs, one of them with a lock
        batch = scene.batch()
        keys = scene.keys_on(own, 2)
        (running,) = (scene.probe.order.apply_async((keys[0], 4)).id,)
        scene.probe.charge.apply_async((keys[1], batch, 4), ha_key=f"order.{keys[1]}")
        scene.wait_started(keys)
        page.wait_for_selector(f"tr[data-lock='account:{batch}']")
        eventually(lambda: dash.ask(f"/api/task/info/{running}")["state"] == "STARTED", every=0.1, why="Flower knows")
        # And more than they can run, which is seen by colour
        keys += scene.publish("order", scene.names(batch, 40), 0.2)
        page.wait_for_selector("path.ha-backlog-1[data-shard]")
        # When it dies
        died = time.monotonic()
        scene.kill(victim)
        # Then it goes, its shards are with others, and the failover is there
        page.wait_for_selector(f"#ha-nodes tr[data-node='{victim.name}'][data-state=live]", state="detached")
        page.wait_for_selector(f"#ha-failovers li[data-node='{victim.name}']")
        page.wait_for_function(
            "name => document.querySelectorAll('path[data-shard]').length === 12"
            " && !document.querySelector(`path[data-node='${name}']`)",
            arg=victim.name,
        )
        assert time.monotonic() - died < SEEN
        # And its task is told to be elsewhere, here and where Flower tells of tasks
        page.wait_for_selector(f"tr[data-task='{running}'] >> text={victim.name}")
        assert dash.ask(f"/api/task/info/{running}")["worker"] != victim.name or (
            dash.ask(f"/api/task/info/{running}")["state"] == "RETRY"
        )
        if PICTURES:
            page.screenshot(path=f"{PICTURES}/flower-{theme}.png", full_page=False)
        # When the dead letter is retried by a click, then it is gone: nobody knows its task, so there is another
        page.click(f"tr[data-letter='{letter}'] button[data-action=retry]")
        page.wait_for_selector(f"tr[data-letter='{letter}']", state="detached")
        page.wait_for_selector("tr[data-letter] button[data-action=drop]")
        page.click("tr[data-letter] button[data-action=drop]")
        page.wait_for_selector("text=no dead letters")
    assert dash.ask("/api/ha/dead") == {"total": 0, "letters": []}


def test_the_api_tells_what_the_commands_tell(shared_scene: Scene, shared_flower: Dashboard):
    dash = shared_flower
    shared_scene.top_up(2)
    shared_scene.wait_idle()
    for noun in NOUNS:
        said, told = dash.ask(f"/api/ha/{noun}"), ask_ha(shared_scene.probe.app, noun)
        check_form(form_of([noun]), said)
        for value in (said, told) if noun == "status" else ():
            for node in value["nodes"]:
                node.pop("age")  # it grew
        assert said == told, noun
    assert dash.get("/api/ha/dead?limit=0")[0] == 400
    assert dash.get("/api/ha/dead?limit=many")[0] == 400
    assert dash.get("/api/ha/nonsense")[0] == 404
    assert dash.send("POST", "/api/ha/dead/retry/none") == (404, '{"error": "there is no dead letter \'none\'"}')


def test_without_a_login_nothing_is_served(shared_flower: Dashboard):
    dash = shared_flower
    for path in PATHS:
        assert dash.get(path)[0] == 200, path
        assert dash.get(path, login="")[0] == 401, path
    assert dash.send("POST", "/api/ha/dead/retry/none", login="")[0] == 401
    # Nor does another site's page reach it with the login of who looks at it
    assert dash.send("POST", "/api/ha/dead/retry/none", Sec_Fetch_Site="cross-site")[0] == 403


def test_who_has_not_logged_in_by_oauth_is_sent_to_the_login(shared_scene: Scene, flower):
    oauth = "--auth_provider=flower.views.auth.GoogleAuth2LoginHandler"
    dash = flower("--auth=.*@example.com", oauth, "--oauth2_key=k", "--oauth2_secret=s", auth=False, prefix="/tools")
    for path in PATHS:
        status, headers = dash.head_of("GET", path)
        assert (status, headers["Location"].partition("?")[0]) == (302, "/tools/login"), path
    assert dash.head_of("POST", "/api/ha/dead/retry/none")[0] == 403


def test_flower_without_logins_shows_the_tab_and_keeps_its_api_shut(shared_scene: Scene, flower):
    dash = flower(auth=False)
    assert "status" in dash.ask("/ha/data")
    assert dash.get("/api/ha/status")[0] == 401
    assert dash.send("POST", "/api/ha/dead/retry/none")[0] == 401


def test_a_read_only_flower_changes_nothing(shared_scene: Scene, flower):
    dash = flower("--read-only")
    assert "data-read-only" in dash.get("/ha")[1]
    assert dash.send("POST", "/api/ha/dead/drop/none")[0] == 403


def test_an_app_without_ha_has_no_tab(shared_scene: Scene, flower):
    dash = flower(PROBE_PLAIN="1")
    assert 'href="/ha"' not in dash.get("/workers")[1]
    assert dash.get("/ha")[0] == 404


def test_it_lives_through_restarts(start_redis: Callable[..., RedisServer], make_scene, tmp_path: Path):
    server = start_redis()
    scene = make_scene(server)
    with fleet(tmp_path, **scene.fleet.environment) as programs:
        dash = dashboard(programs)
        assert dash.get("/ha/data")[0] == 200
        server.stop()
        # Away: one line, and the page itself still comes
        _, body = eventually(lambda: (told := dash.get("/ha/data"))[0] == 503 and told, every=0.1, why="away")
        assert "could not be reached" in json.loads(body)["error"]
        assert dash.get("/ha")[0] == 200
        server.start()
        eventually(lambda: dash.get("/ha/data")[0] == 200, every=0.1, why="back")
        dash.stop()
        dash.start()
        assert dash.get("/ha/data")[0] == 200


def test_fleet_without_any_redis_is_shown_too(
    make_module_scene: Callable[..., Scene], flower, rabbit: Rabbit, zookeeper_server: ZooKeeper
):
    # Given a worker on RabbitMQ, its lease in ZooKeeper, a lock that is held and a dead letter
    conf = json.dumps({"ha_store": f"zookeeper://{zookeeper_server.host}/flower"})
    scene = make_module_scene(ttl=8.0, broker=rabbit.url(), PROBE_CONF=conf)
    (worker,) = scene.start()
    letter, (key,) = bury(scene), scene.publish("charge", [scene.batch()], "account", 20)
    scene.wait_started([key])
    # Then every noun is answered, in its form
    dash = flower(**scene.fleet.environment)
    found = dash.ask("/ha/data")
    for noun in NOUNS:
        check_form(form_of((noun,)), dash.ask(f"/api/ha/{noun}"))
    assert [node["name"] for node in found["status"]["nodes"]] == [worker.name]
    assert [lock["name"] for lock in found["locks"]["locks"]] == ["account:account"]
    assert [each["id"] for each in found["dead"]["letters"]] == [letter]
    # And the letter can be dropped from there
    status, body = dash.send("POST", f"/api/ha/dead/drop/{letter}")
    assert (status, json.loads(body)) == (200, {"dropped": 1})


def test_a_waiting_task_of_a_dead_worker_is_not_started_for_ever(shared_scene: Scene, shared_flower: Dashboard):
    scene = shared_scene
    workers = scene.top_up(2)
    watched(scene)
    dash = shared_flower
    assert ">HA<" in dash.get("/workers")[1], "any page will do: nobody opens the tab"
    # Given a task of each of two workers' slots, and so none that is free for another
    victim = next(worker for worker in workers if worker is not scene.leader)
    keys = [key for worker in workers for key in scene.keys_on(scene.shards(worker), 2)]
    ids = {key: scene.probe.order.apply_async((key, 7)).id for key in keys}
    scene.wait_started(keys)
    held = [run.key for run in scene.ledger.runs() if run.key in keys and run.node == victim.name]

    def state(key: str) -> str:
        return dash.ask(f"/api/task/info/{ids[key]}")["state"]

    eventually(lambda: all(state(key) == "STARTED" for key in held), every=0.1, why="Flower knows")
    scene.kill(victim)
    # Then they are told to wait, and to go on when they do
    eventually(lambda: all(state(key) == "RETRY" for key in held), every=0.1, why="requeued")
    told = {each["task_id"]: each for each in dash.ask("/ha/data")["requeued"]}
    assert {(told[ids[key]]["from"], told[ids[key]]["node"]) for key in held} == {(victim.name, None)}
    eventually(lambda: all(state(key) == "STARTED" for key in held), every=0.1, why="elsewhere")
    assert {dash.ask(f"/api/task/info/{ids[key]}")["worker"] for key in held} == {
        workers[1 - workers.index(victim)].name
    }
