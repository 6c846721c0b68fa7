"""Messages that cannot be run: the worker lives, good tasks go on, the bad ones are kept and told once."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from celery.result import AsyncResult

from tests.support.bad_messages import BAD, Message, dump, encoded
from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene

PLAIN, SHARD = "celery", "orders.0"
#: A record of Celery's log from a warning upwards.
TROUBLE = re.compile(r"^\[[^\]]*: (WARNING|ERROR|CRITICAL)/", re.MULTILINE)
#: Kinds of which somebody may wait for the result.
TOLD_FAILURE = ("unknown task", "wrong arguments", "arguments missing")


@dataclass(frozen=True)
class Letter:
    """What the broker keeps of a message: ``1<started> <length> <source><payload>``."""

    source: str
    payload: bytes
    reason: str


@dataclass
class Aftermath:
    """One worker that was sent every kind of bad message on both kinds of queue, between good ones."""

    scene: Scene
    worker: Worker
    models: dict[str, Message]
    sent: dict[tuple[str, str], bytes]
    ids: dict[tuple[str, str], str]
    good: list[str]
    letters: list[Letter]


@pytest.fixture(scope="module")
def aftermath(make_module_scene: Callable[..., Scene]) -> Aftermath:
    scene = make_module_scene(results=True, PROBE_PREFETCH="4")
    models = {PLAIN: model(scene, "work", PLAIN), SHARD: model(scene, "order", SHARD)}
    (worker,) = scene.top_up(1)
    sent, ids, good = {}, {}, []
    for kind, spoil in BAD.items():
        for queue, message in models.items():
            one = copy.deepcopy(message)
            ids[kind, queue] = one["headers"]["id"] = one["properties"]["correlation_id"] = str(uuid.uuid4())
            sent[kind, queue] = spoil(one)
            scene.redis.lpush(queue, sent[kind, queue])
        good += scene.load(2, 0)
    scene.wait_ended(good)
    eventually(lambda: scene.waiting(PLAIN, SHARD) == 0, why="all taken")
    scene.wait_idle()
    return Aftermath(scene, worker, models, sent, ids, good, letters(scene))


def model(scene: Scene, task: str, queue: str) -> Message:
    """A good message as it stands in a queue, taken out again."""
    (key,) = scene.keys_on({queue}, 1) if queue == SHARD else [scene.batch()]
    scene.publish(task, [key], 0)
    return json.loads(scene.redis.rpop(queue))


def letters(scene: Scene) -> list[Letter]:
    reasons = scene.hash("dead:why")
    found = []
    for claim, record in scene.hash("dead").items():
        _, length, rest = record.split(b" ", 2)
        source, payload = rest[: int(length)], rest[int(length) :]
        found.append(Letter(source.decode(), payload, reasons[claim].decode()))
    return found


@pytest.mark.parametrize("queue", [PLAIN, SHARD])
@pytest.mark.parametrize("kind", BAD)
def test_bad_message_is_kept_among_the_dead_letters_whole_with_a_reason(aftermath: Aftermath, kind: str, queue: str):
    kept = [one for one in aftermath.letters if (one.source, one.payload) == (queue, aftermath.sent[kind, queue])]
    assert len(kept) == 1
    assert kept[0].reason not in ("", "rejected")


def test_worker_lives_and_runs_every_good_task_once(aftermath: Aftermath):
    assert aftermath.worker.alive
    aftermath.scene.settled(aftermath.good)
    assert aftermath.scene.ledger.reruns(aftermath.good) == set()
    assert len(aftermath.letters) == len(aftermath.sent)
    assert aftermath.worker.log.read_text().count(" ready.") == 1, "the worker lost its connection"


def test_each_bad_message_is_logged_once(aftermath: Aftermath):
    log = aftermath.worker.log.read_text().partition(" ready.")[2]
    assert len(TROUBLE.findall(log)) == len(aftermath.sent)


@pytest.mark.parametrize("queue", [PLAIN, SHARD])
@pytest.mark.parametrize("kind", TOLD_FAILURE)
def test_whoever_waits_for_a_task_that_cannot_run_is_told_its_failure(aftermath: Aftermath, kind: str, queue: str):
    result = AsyncResult(aftermath.ids[kind, queue], app=aftermath.scene.probe.app)
    eventually(lambda: result.state == "FAILURE")


def test_message_of_5_mb_runs_on_both_kinds_of_queue(aftermath: Aftermath):
    scene, cargo = aftermath.scene, "x" * 5_000_000
    key = scene.batch()
    on_shard = scene.probe.carry.delay(key + "shard", cargo)
    on_plain = scene.probe.carry.apply_async((key + "plain", cargo), queue=PLAIN)
    assert on_shard.get(timeout=60) == on_plain.get(timeout=60) == len(cargo)
    scene.settled([key + "shard", key + "plain"])


def test_message_without_delivery_info_runs(aftermath: Aftermath):
    scene, key = aftermath.scene, aftermath.scene.batch()
    message = copy.deepcopy(aftermath.models[PLAIN])
    del message["properties"]["delivery_info"]
    message["body"] = encoded(json.dumps([[key, 0], {}, {}]).encode())
    scene.redis.lpush(PLAIN, dump(message))
    scene.settled([key])
