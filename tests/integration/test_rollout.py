"""Plain Celery before, beside and after celery_ha, on the same broker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from celery_ha.cli import ha
from celery_ha.keys import shard_names
from tests.support.fleet import eventually
from tests.support.scene import Scene, load_probe

PLAIN = {"PROBE_PLAIN": "1"}
#: kombu looks for what dead plain workers held every 100 s; here every second.
SWEEP = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}


def plain_producer(scene: Scene) -> ModuleType:
    """The probe app without celery_ha."""
    return load_probe({**scene.fleet.environment, **PLAIN})


def uninstall(scene: Scene, *options: str) -> Result:
    context = CLIContext(app=scene.probe.app, no_color=True, workdir=None)
    return CliRunner().invoke(ha, ["uninstall", "--yes", *options], obj=context)


def test_plain_workers_and_producers_beside_ours_lose_nothing(make_scene: Callable[..., Scene]):
    # Given a plain worker and a plain producer beside two of ours, with the visibility timeout of the user
    conf = {"broker_transport_options": {**SWEEP, "visibility_timeout": 2}}
    scene = make_scene(PROBE_CONF=json.dumps(conf))
    ours = scene.top_up(2)
    (plain,) = scene.start(1, **PLAIN)
    producer = plain_producer(scene)
    keys = scene.load(40, 0.05)
    for key in scene.names("plain-", 40):
        (producer.order if len(keys) % 2 else producer.work).delay(key, 0.05)
        keys.append(key)
    held = scene.publish("work", scene.names("held-", 6), 1.0)
    eventually(lambda: {run.node for run in scene.ledger.runs()} == {worker.name for worker in (*ours, plain)})
    # When one of each kind is killed
    scene.kill(ours[0])
    eventually(lambda: any(run.node == plain.name and run.end is None for run in scene.ledger.runs()))
    scene.kill(plain)
    # Then everything comes to its end, also what the plain one held: after that timeout, as ever
    scene.wait_ended([*keys, *held])
    scene.wait_idle()
    assert scene.ledger.doubled([*keys, *held], scene.harms) == {}
    producer.app.close()


@pytest.mark.parametrize(("first", "then"), [(3, 12), (12, 3)])
def test_while_the_number_of_shards_is_changed_every_shard_has_one_owner(
    make_scene: Callable[..., Scene], first: int, then: int
):
    scene = make_scene()
    shards = set(shard_names("orders", 12))
    # Given a worker with one number of shards, and one beside it with another
    (old,) = scene.start(1, PROBE_SHARDS=str(first))
    (new,) = scene.start(1, PROBE_SHARDS=str(then))
    # Then each of all shards is consumed, and by one of them
    eventually(lambda: consumed(scene) == Counter(shards), why="one owner for each shard")
    keys = [key for shard in sorted(shards) for key in scene.keys_on({shard}, 2)]
    scene.publish("order", keys, 0.0)
    scene.settled(keys)
    # And when the one that brought the most goes again, the other one keeps them
    widest = old if first > then else new
    scene.kill(widest)
    eventually(lambda: consumed(scene) == Counter(shards), why="one owner for each shard")


def consumed(scene: Scene) -> Counter[str]:
    """The shards that live workers consume, by how many do."""
    found = scene.probe.app.control.inspect(timeout=1.0, limit=len(scene.live)).active_queues() or {}
    names = (queue["name"] for queues in found.values() for queue in queues)
    return Counter(name for name in names if name.startswith("orders."))


def test_uninstalling_gives_everything_that_is_held_to_plain_workers(make_scene: Callable[..., Scene]):
    # Given messages in every place we keep them: running, waiting for an ETA, for a lock, on shards
    scene = make_scene()
    scene.top_up(2)
    blocker = scene.publish("charge", ["blocker"], "account", 60.0)
    scene.wait_started(blocker)
    parked = scene.publish("charge", scene.names("parked-", 3), "account", 0.0)
    eventually(lambda: scene.redis.llen("_ha:line:account:account") == 3, why="in line for the lock")
    scene.publish("order", scene.names("later-", 5), 0.0, countdown=1.0)
    keys = scene.names("later-", 5) + scene.load(60, 0.5)
    scene.wait_started(keys, 2)
    # When it is asked for while workers live, it is refused
    refusal = uninstall(scene)
    assert refusal.exit_code == 1
    assert "stop these workers first: w1@probe, w2@probe" in refusal.output
    # When they are dead
    for worker in scene.live:
        scene.kill(worker)
    done = uninstall(scene, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    # Then all that had not ended is in plain queues, and nothing is left in flight, in line or on shards
    unfinished = len(scene.ledger.missing([*blocker, *parked, *keys]))
    assert scene.waiting("orders", "celery") == unfinished
    assert answer["given_back"] > 8
    assert answer["merged"] > 0
    assert not list(scene.redis.scan_iter("_ha:flight:*"))
    assert not list(scene.redis.scan_iter("_ha:line:*"))
    # And once more, it finds nothing to do
    again = json.loads(uninstall(scene, "--json").stdout)
    assert (again["given_back"], again["merged"]) == (0, 0)
    # And plain workers run it
    scene.start(2, **PLAIN)
    scene.wait_ended(keys)
    assert scene.ledger.doubled(keys, scene.harms) == {}


def test_retry_of_a_task_that_was_on_a_shard_finds_a_plain_worker(make_scene: Callable[..., Scene]):
    # Given tasks on shards that retry, which no worker has taken
    scene = make_scene()
    keys = scene.publish("again", scene.names("again-", 6))
    assert json.loads(uninstall(scene, "--json").stdout)["merged"] == 6
    # Then plain workers run every one of their attempts
    scene.start(1, **PLAIN)
    eventually(lambda: all(len(scene.ledger.by_key().get(key, ())) == 4 for key in keys), why="four attempts each")
