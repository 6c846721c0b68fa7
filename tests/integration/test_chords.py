"""A chord's body, whatever dies between the end of a part's body and the acknowledgement of its message."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from celery import chord

from tests.support.fatal_chords import STEPS
from tests.support.fleet import eventually
from tests.support.scene import Scene

HANG = 60
#: So that a claim of Celery's own, made by a dead part for as long as publishing may take, outlasts every test.
PATIENT = '{"task_publish_retry_policy": {"max_retries": 1000}}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strikes")


@pytest.fixture(scope="module")
def pair_scene(make_module_scene: Callable[..., Scene], folder: Path) -> Scene:
    return make_module_scene(results=True, ttl=2.0, PROBE_STRIKES=str(folder), PROBE_CONF=PATIENT)


@pytest.fixture
def pair(pair_scene: Scene, folder: Path) -> Iterator[Scene]:
    """Two live workers that keep results."""
    pair_scene.top_up(2)
    pair_scene.wait_idle()
    pair_scene.harms.clear()
    yield pair_scene
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("step", "who"),
    [*product(STEPS, ("child", "main")), ("publishing", "told"), ("published", "told")],
)
def test_body_runs_once_whoever_dies_at_whatever_step_of_counting_a_part(
    pair: Scene, folder: Path, step: str, who: str
):
    probe, batch = pair.probe, pair.batch()
    keys, body = pair.names(batch, 3), f"{batch}body"
    # Given a process that dies at this step
    (folder / f"{step}.{who}").touch()
    # When a chord's part comes to it
    result = chord(probe.order.s(key, 0) for key in keys)(probe.total.s(body))
    # Then the body is published all the same, and once
    assert result.get(timeout=HANG) == sorted(keys)
    eventually(lambda: not (folder / f"{step}.{who}").exists(), why="somebody died")
    # And a part runs again only when nobody who lives knows its result
    eventually(lambda: not pair.waiting("celery") and (who != "main" or pair.ledger.reruns(keys)), why="all ran")
    pair.wait_idle()
    assert bool(pair.ledger.reruns(keys)) == (who == "main")
    assert pair.ledger.reruns([body]) == set()


def test_part_that_wakes_up_fenced_neither_publishes_nor_fails_nor_cleans_what_its_other_attempt_needs(
    pair: Scene, folder: Path
):
    probe, batch = pair.probe, pair.batch()
    keys, body = pair.names(batch, 2), f"{batch}body"
    (folder / "extended.frozen").touch()
    before = pair.fenced()
    # Given a last part that stops, with its worker, when it is about to publish the body
    finale = probe.total.s(body).on_error(probe.told.s())
    result = chord(probe.order.s(key, 1.5) for key in keys)(finale)
    eventually((folder / "frozen").exists, why="it stands still")
    main = int((folder / "frozen").read_text())
    # When it goes on after it was fenced, before its other attempt has ended
    eventually(lambda: pair.fenced() - before, why="fenced")
    (folder / "go").touch()
    eventually(lambda: not (folder / "go").exists(), why="it goes on")
    assert len(pair.ledger.by_key().get(body, [])) == 0
    # Then the other attempt publishes the body, once, and nobody was told of a failure
    assert result.get(timeout=HANG) == sorted(keys)
    os.kill(main, signal.SIGCONT)
    eventually(lambda: not pair.waiting("celery"), why="all ran")
    pair.wait_idle()
    assert pair.ledger.reruns([body]) == set()
    assert not [line for line in pair.ledger.lines() if line[0] == "told"]


def test_part_whose_result_is_there_is_counted_when_celery_does_not_run_it_again(
    make_scene: Callable[..., Scene], folder: Path
):
    conf = '{"worker_deduplicate_successful_tasks": true}'
    one_at_a_time = ("-Q", "orders,celery", "-c", "1", "--without-gossip", "--without-mingle")
    pair = make_scene(results=True, ttl=2.0, options=one_at_a_time, PROBE_STRIKES=str(folder), PROBE_CONF=conf)
    pair.top_up(2)
    probe, keys = pair.probe, pair.names("part-", 3)
    # Given a worker that dies between the result of a part and its count
    (folder / "counting.main").touch()
    result = chord(probe.order.s(key, 0) for key in keys)(probe.total.s("body"))
    # Then it is counted without being run again
    assert result.get(timeout=HANG) == sorted(keys)
    pair.wait_idle()
    assert pair.ledger.reruns([*keys, "body"]) == set()
    assert not (folder / "counting.main").exists(), "nobody died"
