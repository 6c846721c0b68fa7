"""The command line on a living fleet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from celery import Celery
from click.shell_completion import ShellComplete
from click.testing import Result

from celery_ha import HA
from celery_ha.cli import ha
from celery_ha.cli.locks import whoami
from celery_ha.inspect.schema import SCHEMAS
from tests.support.command import ask_ha, run_ha
from tests.support.fleet import ROOT, eventually
from tests.support.scene import PROBE, Scene, wait_exit
from tests.support.server import RedisServer, free_port
from tests.support.zookeeper import ZooKeeper

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
    return run_ha(app, *arguments, typed=typed)


def ask(scene: Scene, *arguments: str) -> Any:
    """The JSON of a command that ends well; people see something too."""
    return ask_ha(scene.probe.app, *arguments)


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
    # They come again, so that the next test does not meet them
    eventually(lambda: ask(duo, "dead", "list")["total"] == 2, every=0.1, why="given up again")


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


def test_a_broker_that_hangs(start_redis: Callable[..., RedisServer]):
    server = start_redis()
    app = Celery("patient", broker=server.url, set_as_current=False)
    app.conf.ha_lease_ttl = 2.0
    HA(app)
    server.send(signal.SIGSTOP)
    try:
        assert "could not be reached" in refused(app, "status")
    finally:
        server.send(signal.SIGCONT)


def test_a_setting_that_cannot_be_used():
    app = Celery("wrong", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.ha_lease_tll = 3
    HA(app)
    assert "ha_lease_ttl" in refused(app, "status")


def test_ring(duo: Scene):
    found = ask(duo, "ring", "orders")
    assert found == ask(duo, "ring")
    assert found["orders"]["shards"] == 12
    owned = {node["node"]: set(node["shards"]) for node in found["orders"]["nodes"]}
    assert owned == {worker.name: set(duo.shards(worker)) for worker in duo.live}
    assert found["orders"]["waiting"] == {}
    # A key goes where the router sends it, and the node that is named there runs it
    one, _ = duo.live
    (key,) = duo.keys_on(duo.shards(one), 1)
    where = ask(duo, "ring", "orders", "--key", f"order.{key}")
    assert where["node"] == one.name
    duo.wait_ended(duo.publish("order", [key]))
    assert [part.node for part in duo.ledger.runs() if part.key == key] == [one.name]
    # Without a node, what it has moves to the other
    moved = ask(duo, "ring", "--without", one.name)["moves"]
    assert {move["shard"] for move in moved} == set(duo.shards(one))
    assert one.name in run(duo, "ring").stdout


def test_bad_ring_questions(duo: Scene):
    assert "there are: orders" in refused(duo, "ring", "nowhere")
    assert duo.live[0].name in refused(duo, "ring", "--without", "nobody@nowhere")
    refused(duo, "ring", "orders", "--key", "k", "--without", "n", code=2)


def test_locks_and_their_release(duo: Scene):
    # Given a task that holds a lock and one that is parked behind it
    batch = duo.batch()
    held, parked = batch + "held", batch + "parked"
    duo.publish("charge", [held], batch, 60)
    duo.wait_started([held])
    duo.publish("charge", [parked], batch, 0)
    name = f"account:{batch}"
    eventually(lambda: ask(duo, "locks")["lines"], why="parked")
    found = ask(duo, "locks", "list")
    (slot,) = found["locks"]
    assert (slot["name"], slot["slot"], slot["state"], slot["left"]) == (name, 0, "held", None)
    assert slot["node"] in {worker.name for worker in duo.live}
    assert slot["since"] == pytest.approx(slot["token"] / 1e6)
    (waiter,) = found["lines"][name]["first"]
    assert (found["lines"][name]["waiting"], waiter["parked"], waiter["node"]) == (1, True, None)
    assert ask(duo, "status")["in_line"] == 1
    assert name in run(duo, "locks").stdout
    # When nobody is sure, then nothing happens
    assert run(duo, "locks", "release", name, typed="n\n").exit_code == 1
    assert ask(duo, "locks")["locks"] == [slot]
    # When it is released, then the next has it
    assert ask(duo, "locks", "release", name, "--yes")["released"] == 1
    duo.wait_ended([parked])
    # Who had it is not stopped: it learns of it when it looks, so the test stops it
    duo.probe.app.control.revoke(slot["task"], terminate=True)
    (note,) = ask(duo, "locks", "releases")
    assert (note["name"], note["freed"], note["by"]) == (name, 1, whoami())
    assert name in run(duo, "locks", "releases").stdout
    eventually(lambda: not ask(duo, "locks")["locks"], why="all free")
    assert "no held lock" in refused(duo, "locks", "release", name)


def test_failovers(duo: Scene):
    (victim, _), before = duo.live, len(ask(duo, "failovers"))
    node = duo.node(victim)
    duo.kill(victim)
    after = eventually(lambda: (found := ask(duo, "failovers"))[before:] and found, every=0.1, why="a failover")
    assert (after[0]["node"], after[0]["lease"]) == (victim.name, node.lease)
    assert after[0]["reason"]
    assert 0 <= after[0]["took"] < 60
    assert victim.name in run(duo, "failovers").stdout
    assert len(ask(duo, "failovers", "--limit", "1")) == 1


def test_drain_sends_a_node_home_without_a_failover(duo: Scene):
    before = ask(duo, "failovers")
    (leaver,) = duo.start()
    eventually(lambda: leaver.name in {node["name"] for node in ask(duo, "status")["nodes"]}, why="registered")
    assert ask(duo, "drain", leaver.name, "--timeout", "20") == {"node": leaver.name, "told": True}
    wait_exit([leaver])
    assert leaver.name not in {node["name"] for node in ask(duo, "status")["nodes"]}
    assert ask(duo, "failovers") == before


def test_drain_of_who_is_not_there_or_does_not_answer(duo: Scene):
    assert "there is no node" in refused(duo, "drain", "nobody@nowhere")
    frozen = duo.live[0]
    frozen.send(signal.SIGSTOP)
    try:
        assert "did not answer" in refused(duo, "drain", frozen.name, "--timeout", "0.2")
    finally:
        frozen.send(signal.SIGCONT)
    assert frozen.alive


def test_check(duo: Scene):
    found = ask(duo, "check")
    assert {line["level"] for line in found} == {"ok", "warning"}
    assert {"level": "ok", "about": "orders", "text": "12 shards"} in found
    assert any("keeps nothing over a restart" in line["text"] for line in found)
    duo.redis.config_set("maxmemory", "1gb")
    duo.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        result = run(duo, "check")
    finally:
        duo.redis.config_set("maxmemory-policy", "noeviction")
        duo.redis.config_set("maxmemory", "0")
    assert result.exit_code == 1
    assert "CONFIG SET maxmemory-policy noeviction" in result.stdout
    assert "1 error" in result.stdout


def test_zookeeper_tells_as_redis_does(duo: Scene, zookeeper_server: ZooKeeper):
    app = Celery("elsewhere", broker=duo.server.url, set_as_current=False)
    app.conf.ha_store = zookeeper_server.url
    HA(app)
    assert ask_ha(app, "locks") == {"total": 0, "locks": [], "lines": {}}
    assert ask_ha(app, "failovers") == []
    assert ask_ha(app, "status")["in_line"] == 0
    found = ask_ha(app, "check")
    assert [line["text"].partition(" ")[0] for line in found if line["about"] == "store"] == [
        "ZooKeeper",
        "one",
        "sessions",
        "clocks",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"), [(("-A", PROBE, "ha", "status"), 0, "leader:"), (("ha", "status"), 1, "has no HA")]
)
def test_celery_knows_the_command(duo: Scene, arguments: tuple[str, ...], code: int, says: str):
    done = subprocess.run(
        [sys.executable, "-m", "celery", *arguments],
        cwd=ROOT,
        env={**os.environ, **duo.fleet.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_has_a_form():
    def names(group: click.Group, *path: str) -> set[str]:
        context, found = click.Context(group), set()
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            found |= names(command, *path, name) if isinstance(command, click.Group) else {" ".join([*path, name])}
        return found

    assert {form.partition(" --")[0] for form in SCHEMAS} == names(ha)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("status", "extra"),
        ("dead", "list", "--limit", "0"),
        ("dead", "list", "--limit", "many"),
        ("dead", "retry"),
        ("dead", "retry", "one", "--all"),
        ("dead", "show"),
        ("locks", "release"),
        ("failovers", "--limit", "-1"),
        ("beat", "--limit", "x"),
        ("drain",),
        ("drain", "w1", "--timeout", "0"),
        ("ring", "--key"),
    ],
)
def test_misuse_is_said_with_exit_code_2(duo: Scene, arguments: tuple[str, ...]):
    assert "Error: " in refused(duo, *arguments, code=2).splitlines()[-1]


def test_help_and_completion_name_every_command(duo: Scene):
    said = run(duo, "--help").stdout
    assert all(name in said for name in ("status", "ring", "locks", "dead", "failovers", "beat", "drain", "check"))
    offered = ShellComplete(ha, {}, "ha", "_HA_COMPLETE").get_completions(["dead"], "")
    assert {"list", "show", "retry", "drop"} <= {item.value for item in offered}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ha d", {"dead", "drain", "drill"}),
        ("ha locks ", {"list", "release", "releases"}),
        ("ha ring --", {"--key", "--without", "--json", "--help"}),
    ],
)
def test_the_shell_completes_as_for_celery_s_own_commands(typed: str, offered: set[str]):
    # As the function that Celery's script defines asks, on each press of the key
    words = f"celery -A {PROBE} {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_CELERY_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'celery'; from celery.__main__ import main; main()"],
        cwd=ROOT,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered
