"""Tasks that take whoever touches them down: given up with everybody told, and nobody dragged along."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError

from celery_ha import PoisonTask
from celery_ha.brokers.connect import redis_access
from celery_ha.brokers.dead import DeadLetter, DeadLetters
from celery_ha.envelope import deliveries, task_id
from tests.support.fleet import eventually
from tests.support.scene import Scene

#: Seconds for what should happen at all.
HANG = 60.0


@pytest.fixture(scope="module")
def pair_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    settings = {"accept_content": ["json", "application/x-deadly"], "ha_max_deliveries": 2}
    return make_module_scene(ttl=2.0, results=True, PROBE_CONF=json.dumps(settings))


@pytest.fixture
def pair(pair_scene: Scene) -> Scene:
    """Two live workers whose tasks may start twice."""
    pair_scene.top_up(2)
    pair_scene.wait_idle()
    pair_scene.harms.clear()
    return pair_scene


def letter_of(scene: Scene, task: str) -> DeadLetter:
    """The dead letter of a task, while the dead workers are replaced."""
    dead = DeadLetters(redis_access(scene.probe.app).broker(timeout=5, dead_limit=10))

    def found() -> DeadLetter | None:
        for _ in range(2 - len(scene.live)):
            scene.fleet.start(*scene.options, ready=False)
        return next((letter for letter in dead if task_id(letter.claim.payload) == task), None)

    letter: DeadLetter = eventually(found, every=0.1, within=HANG, why="a dead letter")
    return letter


def dragged_along(scene: Scene, keys: list[str]) -> set[str]:
    """Wait until all came to their end; returns those given up, which were beside a killer as often as a task may start (G7).

    One of their attempts may have had its slot and not begun, another have ended without its ack having been sent.
    """
    dead = DeadLetters(redis_access(scene.probe.app).broker(timeout=5, dead_limit=10))

    def given_up() -> set[str]:
        letters = [letter.claim.payload for letter in dead]
        return {first_argument(payload) for payload in letters if deliveries(payload) == 2} & {*keys}

    eventually(lambda: scene.ledger.missing(keys) <= given_up(), within=HANG, why="all others ended")
    scene.wait_idle()
    return given_up()


def first_argument(payload: bytes) -> str:
    """What a task was called with; empty for a message that nobody can read."""
    raw = json.loads(payload)
    if raw["content-type"] != "application/json":
        return ""
    return str(next(iter(json.loads(b64decode(raw["body"]))[0]), ""))


def failure(result: Any) -> BaseException:
    eventually(result.ready, why="a result")
    assert result.failed()
    return result.result  # type: ignore[no-any-return]


def test_poison_task_is_given_up_and_errback_and_chord_are_told(pair: Scene):
    probe, key = pair.probe, pair.batch()
    # Given a task in a chord whose process dies whenever it runs
    poison = probe.fatal.s(key + "poison", "exit").on_error(probe.told.s())
    body = chord([probe.order.s(key + "good", 0), poison])(probe.total.s(key + "body"))
    task = next(result.id for result in body.parent.results if result.id != body.parent.results[0].id)
    # Then it is started as often as allowed, and kept
    letter = letter_of(pair, task)
    assert deliveries(letter.claim.payload) == 2
    assert len(pair.ledger.by_key()[key + "poison"]) == 2
    # And everybody knows: the result, the errback, the chord
    assert isinstance(failure(body.parent.results[1]), PoisonTask)
    assert isinstance(failure(body), ChordError)
    eventually(lambda: ["told", task, "PoisonTask"] in [line[:3] for line in pair.ledger.lines()])
    # And its lock is free for the next of its kind, and no worker was lost
    pair.settled(pair.publish("charge", [key + "next"], key + "poison", 0))
    assert len(pair.live) == 2


def test_message_that_kills_whoever_opens_it_is_given_up_and_drags_nobody_along(pair: Scene):
    # Given a message that no main process survives to unpack, among good ones that are claimed with it
    dead = len(pair.hash("dead"))
    before = pair.publish("order", pair.names(pair.batch(), 6), 0.05)
    bomb = pair.probe.order.apply_async((pair.batch(),), serializer="deadly")
    keys = before + pair.load(30, 0.05)
    # Then it is given up, after the attempts it is allowed
    letter = letter_of(pair, bomb.id)
    assert deliveries(letter.claim.payload) == 2
    assert isinstance(failure(bomb), PoisonTask)
    # And every other task came to its end, or had a slot at two of the three times that it went off unopened
    along = dragged_along(pair, keys)
    assert len(pair.hash("dead")) == dead + 1 + len(along)
    assert len(along) <= 3 * 2 // 2


def test_task_that_kills_whoever_receives_it_is_given_up_unopened_and_everybody_is_told(pair: Scene):
    probe, key = pair.probe, pair.batch()
    # Given a task in a chord that no main process lives to start
    body = chord([probe.order.s(key + "good", 0), probe.sinister.s(key).on_error(probe.told.s())])(probe.total.s(key))
    task = body.parent.results[1].id
    # Then it is given up, though no worker could even look at it
    assert deliveries(letter_of(pair, task).claim.payload) == 2
    assert isinstance(failure(body.parent.results[1]), PoisonTask)
    assert isinstance(failure(body), ChordError)
    eventually(lambda: ["told", task, "PoisonTask"] in [line[:3] for line in pair.ledger.lines()])


def test_task_that_kills_the_main_process_is_given_up_and_nothing_else(pair: Scene):
    key = pair.batch() + "main"
    bystanders = pair.load(30, 0.05)
    result = pair.probe.fatal.delay(key, "main")
    letter_of(pair, result.id)
    assert isinstance(failure(result), PoisonTask)
    assert len(pair.ledger.by_key()[key]) == 2
    assert len(dragged_along(pair, bystanders)) <= 1
