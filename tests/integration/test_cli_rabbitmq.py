"""The command line on a fleet on RabbitMQ, with its leases and locks in Redis or in ZooKeeper."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from celery import Celery

from celery_ha import HA
from celery_ha.brokers.amqp_dead import DEAD_QUEUE
from celery_ha.worker.shards import owned_shards
from tests.support.command import ask_ha, run_ha
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene, wait_exit
from tests.support.server import free_port

TTL = 8.0


@pytest.fixture(scope="module", params=["redis", "zookeeper"])
def shared(make_module_scene: Callable[..., Scene], rabbit: Rabbit, request: pytest.FixtureRequest) -> Scene:
    if request.param == "redis":
        store = request.getfixturevalue("redis_server").url.removesuffix("0") + "5"
    else:
        store = f"zookeeper://{request.getfixturevalue('zookeeper_server').host}/cli"
    return make_module_scene(ttl=TTL, broker=rabbit.url(), PROBE_CONF=json.dumps({"ha_store": store}))


@pytest.fixture
def duo(shared: Scene) -> Scene:
    """Two live workers, with nothing left of the test before."""
    shared.start(2 - len(shared.live))
    eventually(lambda: gathered(shared), every=0.2, why="registered, with a leader")
    return shared


def ask(scene: Scene, *arguments: str) -> Any:
    return ask_ha(scene.probe.app, *arguments)


def refused(app: Celery, *arguments: str) -> str:
    result = run_ha(app, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    return result.stderr


def gathered(scene: Scene) -> bool:
    found = ask(scene, "status")
    names = {node["name"] for node in found["nodes"] if node["state"] == "live"}
    return found["leader"] is not None and names == {worker.name for worker in scene.live} and len(names) >= 2


def bury(scene: Scene, count: int) -> list[str]:
    """Dead letters of tasks that no worker knows; returns their ids, the newest first."""
    assert run_ha(scene.probe.app, "dead", "drop", "--all", "--yes").exit_code == 0
    for _ in range(count):
        scene.probe.app.send_task("tests.support.probe.unheard_of", queue="celery")
    eventually(lambda: ask(scene, "status")["dead_letters"] == count, every=0.1, why="dead letters")
    return [letter["id"] for letter in ask(scene, "dead", "list")["letters"]]


def test_status_and_ring(duo: Scene):
    (key,) = duo.publish("order", [duo.batch() + "long"], 4)
    duo.wait_started([key])
    found = ask(duo, "status")
    assert {node["name"] for node in found["nodes"]} == {worker.name for worker in duo.live}
    assert sum(node["shards"] for node in found["nodes"]) == 12
    assert sum(node["in_flight"] for node in found["nodes"]) == 1
    assert all(node["age"] > 0 and node["queues"] == ["celery", "orders"] for node in found["nodes"])
    assert found["queues"] == [
        {"queue": "celery", "shards": None, "waiting": 0},
        {"queue": "orders", "shards": 12, "waiting": 0},
    ]
    assert (found["in_line"], found["dead_letters"]) == (0, 0)
    # A key goes where the router sends it, and the node that is named there runs it
    where = ask(duo, "ring", "orders", "--key", f"order.{key}")
    assert where["node"] in {run.node for run in duo.ledger.runs() if run.key == key}
    (one, two) = duo.live
    moves = ask(duo, "ring", "--without", one.name)["moves"]
    look = duo.probe.app.ha.store.court.look()
    assert {move["shard"] for move in moves} == owned_shards(one.name, {"orders": 12}, look.nodes.values(), look.rings)
    assert {move["to"] for move in moves} == {two.name}
    duo.wait_ended([key])


def test_dead_letters_are_listed_shown_retried_and_dropped(duo: Scene):
    ids = bury(duo, 3)
    listed = ask(duo, "dead", "list", "--limit", "2")
    assert (listed["total"], [letter["id"] for letter in listed["letters"]]) == (3, ids[:2])
    letter = listed["letters"][0]
    assert (letter["task"], letter["queue"], letter["deliveries"]) == ("tests.support.probe.unheard_of", "celery", 0)
    assert letter["at"] > 0
    assert "unheard_of" in letter["reason"]
    shown = ask(duo, "dead", "show", letter["task_id"])
    assert shown.items() >= letter.items()
    assert shown["argsrepr"] == "()"
    # Looking changed nothing, neither what is there nor its order
    assert [each["id"] for each in ask(duo, "dead", "list")["letters"]] == ids
    # One that is retried comes to a worker again, which gives it up again
    assert ask(duo, "dead", "retry", ids[1]) == {"retried": 1}

    def back() -> bool:
        letters = ask(duo, "dead", "list")["letters"]
        return [each["id"] for each in letters[1:]] == [ids[0], ids[2]] and letters[0]["id"] not in ids

    eventually(back, every=0.1, why="given up again")
    assert ask(duo, "dead", "drop", ids[0], "--yes") == {"dropped": 1}
    assert "no dead letter" in refused(duo.probe.app, "dead", "show", ids[0])
    assert ask(duo, "dead", "drop", "--all", "--yes") == {"dropped": 2}
    assert ask(duo, "status")["dead_letters"] == 0


def test_letter_whose_queue_is_gone_stays(duo: Scene):
    with kombu.Connection(duo.probe.BROKER) as connection:
        channel = connection.channel()
        why = json.dumps({"reason": "old", "queue": "gone", "claim": "l.1", "at": 1.0})
        bury(duo, 1)
        letter = channel.prepare_message("{}", None, "application/json", "utf-8", {"ha_dead": why, "id": "t"})
        channel.basic_publish(letter, exchange="", routing_key=DEAD_QUEUE)
    eventually(lambda: ask(duo, "status")["dead_letters"] == 2, every=0.1)
    assert "nothing leads to the queue 'gone'" in refused(duo.probe.app, "dead", "retry", "l.1")
    assert ask(duo, "dead", "drop", "l.1", "--yes") == {"dropped": 1}
    assert ask(duo, "dead", "drop", "--all", "--yes") == {"dropped": 1}


def test_locks_and_their_release(duo: Scene):
    batch = duo.batch()
    duo.publish("charge", [batch + "held"], batch, 60)
    duo.wait_started([batch + "held"])
    duo.publish("patient", [batch + "next"], batch, 0)
    name = f"account:{batch}"
    eventually(lambda: ask(duo, "locks")["lines"], every=0.1, why="in line")
    found = ask(duo, "locks")
    (slot,) = found["locks"]
    assert (slot["name"], slot["slot"], slot["state"], slot["left"]) == (name, 0, "held", None)
    assert slot["node"] in {worker.name for worker in duo.live}
    assert found["lines"][name]["waiting"] == 1
    assert ask(duo, "status")["in_line"] == 1
    assert ask(duo, "locks", "release", name, "--yes")["released"] == 1
    duo.wait_ended([batch + "next"])
    duo.probe.app.control.revoke(slot["task"], terminate=True)
    eventually(lambda: not ask(duo, "locks")["locks"], every=0.1, why="all free")


def test_failovers_and_drain(duo: Scene):
    victim = duo.live[0]
    duo.kill(victim)
    found = eventually(lambda: ask(duo, "failovers"), every=0.2, why="a failover")
    assert found[0]["node"] == victim.name
    assert found[0]["reason"]
    assert 0 <= found[0]["took"] < 60
    (leaver,) = duo.start()
    eventually(lambda: gathered(duo), every=0.2, why="registered")
    assert ask(duo, "drain", leaver.name, "--timeout", "20") == {"node": leaver.name, "told": True}
    wait_exit([leaver])
    assert len(ask(duo, "failovers")) == len(found)


def test_check_and_beat(duo: Scene):
    found = ask(duo, "check")
    assert {line["level"] for line in found} <= {"ok", "warning"}
    assert any(line["about"] == "broker" and line["text"].startswith("RabbitMQ 3.") for line in found)
    assert {"level": "ok", "about": "queues", "text": "declared as here, or not yet"} in found
    assert {"level": "ok", "about": "orders", "text": "12 shards"} in found
    assert ask(duo, "beat")["leader"] is None
    # An app that declares a queue in another way hears of it before its workers do
    app = Celery("other", broker=duo.probe.BROKER, set_as_current=False)
    app.conf.update(
        ha_store=duo.probe.app.conf.ha_store,
        task_queues={"celery": {"queue_arguments": {"x-queue-type": "classic"}}},
    )
    HA(app)
    result = run_ha(app, "check")
    assert result.exit_code == 1
    assert "declared otherwise on the broker: celery" in result.stdout


def test_uninstall_merges_the_shards_in_their_order(duo: Scene):
    assert "stop these workers first" in refused(duo.probe.app, "uninstall", "--yes")
    # Given orders for a shard that nobody consumes any more
    for worker in duo.live:
        duo.kill(worker)
    keys = duo.publish("order", duo.keys_on({"orders.3"}, 150), 0.01)
    # When celery_ha is taken out
    said = ask(duo, "uninstall", "--gone", "--yes")
    assert said == {"given_back": 0, "merged": 150, "dead_letters": 0}
    # Then they wait in the base queue, in their order, for plain workers
    with kombu.Connection(duo.probe.BROKER) as connection:
        channel = connection.channel()
        found = [json.loads(channel.basic_get("orders", no_ack=True).body)[0][0] for _ in keys]
    assert found == keys
    assert ask(duo, "uninstall", "--gone", "--yes")["merged"] == 0


def test_broker_that_is_down():
    app = Celery("lonely", broker=f"amqp://127.0.0.1:{free_port()}//", set_as_current=False)
    app.conf.update(ha_store="redis://127.0.0.1:1/0")
    HA(app)
    assert "could not be reached" in refused(app, "status")


@pytest.mark.parametrize(
    ("change", "says"),
    [(("guest:guest@", "guest:wrong@"), "ACCESS_REFUSED"), (("/", "/nowhere-"), "NOT_ALLOWED")],
)
def test_a_login_or_a_virtual_host_that_is_refused(rabbit: Rabbit, change: tuple[str, str], says: str):
    head, _, tail = rabbit.url().partition("://")
    app = Celery("stranger", broker=f"{head}://{tail.replace(*change)}", set_as_current=False)
    app.conf.update(ha_store="redis://127.0.0.1:1/0")
    HA(app)
    assert says in refused(app, "status")


def test_rabbitmq_without_a_store_says_what_to_set(rabbit: Rabbit):
    app = Celery("storeless", broker=rabbit.url(), set_as_current=False)
    HA(app)
    assert "set ha_store to a Redis or ZooKeeper" in refused(app, "status")
