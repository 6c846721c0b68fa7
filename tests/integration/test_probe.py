"""The probe against a real worker that is stopped, wedged, cut off and told to leave."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.command import ask_ha
from tests.support.fleet import ROOT, Worker, eventually
from tests.support.scene import PROBE, Scene


class Probe:
    """What an orchestrator calls, in the environment of the worker."""

    def __init__(self, scene: Scene) -> None:
        self._environment = {**os.environ, **scene.fleet.environment}

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celery_ha.probe", *options],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def red(self, *options: str) -> str:
        """Why it is red; empty if it is not."""
        answer = self.run(*options)
        assert answer.returncode in {0, 1}, answer
        return answer.stderr if answer.returncode else ""


@pytest.fixture
def solo(make_scene: Callable[..., Scene], tmp_path) -> tuple[Scene, Worker, Probe]:
    """One ready worker that gives up on itself after two seconds."""
    folder = str(tmp_path / "signs")
    scene = make_scene(
        ttl=2.0, CELERY_HA_PROBE_DIR=folder, PROBE_CONF=json.dumps({"ha_wedged_after": 2.0, "ha_confirm_after": 0.5})
    )
    (worker,) = scene.start(1)
    probe = Probe(scene)
    eventually(lambda: not probe.red(), why="ready")
    return scene, worker, probe


def test_a_killed_worker_is_red(solo):
    _, worker, probe = solo
    assert probe.run().stdout == f"{worker.name} is ready\n"
    assert probe.run("--live").stdout == f"{worker.name} is alive\n"
    worker.send(signal.SIGKILL)
    worker.process.wait()
    assert "is gone" in probe.red("--live")
    assert "is gone" in probe.red()


def test_a_frozen_worker_is_not_ready_and_later_not_alive(solo):
    _, worker, probe = solo
    worker.send(signal.SIGSTOP)
    eventually(lambda: "no lease that it can trust" in probe.red(), every=0.1)
    eventually(lambda: "has told nothing of itself" in probe.red("--live"), every=0.1)
    # And one that comes back and finds itself given up is ready again, under a new lease
    worker.send(signal.SIGCONT)
    eventually(lambda: not probe.red(), every=0.1)


def test_a_worker_whose_pool_takes_nothing_is_red_and_says_so(solo):
    scene, worker, probe = solo
    # Given a pool whose processes hang, which nobody notices before there is work
    children = worker.children()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        # When a task comes
        keys = scene.publish("work", ["wedged"], 0)
        # Then it is red, although lease and loop are well
        eventually(lambda: "has not taken the next task" in probe.red("--live"), every=0.1)
        assert "lease" not in probe.red()
        eventually(lambda: worker.said("[ha-wedged "), why="told")
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    # And well again once the pool is
    scene.settled(keys)
    eventually(lambda: not probe.red(), every=0.1)


def test_a_store_that_is_away_is_no_reason_to_restart(solo):
    scene, _, probe = solo
    # When the store answers nobody for longer than the worker has patience
    scene.server.send(signal.SIGSTOP)
    try:
        eventually(lambda: "is the store away?" in probe.red(), every=0.1)
        for _ in range(10):
            assert probe.red("--live") == ""
    finally:
        scene.server.send(signal.SIGCONT)
    # Then it is ready again by itself
    eventually(lambda: not probe.red(), every=0.1)


def test_a_worker_that_drains_is_alive_and_not_ready_and_leaves_nothing(solo, tmp_path):
    scene, worker, probe = solo
    keys = scene.publish("work", ["last"], 2.0)
    scene.wait_started(keys)
    worker.send(signal.SIGTERM)
    eventually(lambda: "it drains" in probe.red(), every=0.05)
    assert probe.red("--live") == ""
    worker.process.wait(60)
    assert "has told how it is" in probe.red("--live")
    assert list((tmp_path / "signs").iterdir()) == []


def test_of_several_workers_one_has_to_be_named(solo):
    scene, worker, probe = solo
    (other,) = scene.start(1)
    eventually(lambda: not probe.red("-n", other.name), why="ready")
    unclear = probe.run()
    assert unclear.returncode == 2
    assert worker.name in unclear.stderr
    assert other.name in unclear.stderr
    # And the part before the @ is enough
    answer: dict[str, Any] = json.loads(probe.run("-n", worker.name.partition("@")[0], "--json").stdout)
    assert answer["node"] == worker.name
    assert (answer["ok"], answer["live"], answer["ready"], answer["findings"]) == (True, True, True, [])


def spent(*command: str, environment: dict[str, str]) -> float:
    """Seconds of processor time that a command took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_look_costs_less_than_a_tenth_of_a_second_beyond_what_has_to_start(solo):
    scene, _, _ = solo
    celery, environment = (sys.executable, "-m", "celery"), {**os.environ, **scene.fleet.environment}
    pairs = {
        "the program": ((sys.executable, "-m", "celery_ha.probe"), (sys.executable, "-c", "pass")),
        # Celery loads the app before it lets any command run.
        "the command": ((*celery, "-A", PROBE, "ha", "probe"), (*celery, "-A", PROBE, "call", "--help")),
    }
    for name, pair in pairs.items():
        # In turns, so that whatever slows this machine down slows both; the least is what they need.
        times = [[spent(*command, environment=environment) for command in pair] for _ in range(4)]
        asked, idle = (min(column) for column in zip(*times, strict=True))
        assert asked - idle < 0.1, name


def test_celery_s_start_imports_no_command_of_ours():
    # Given what Celery imports whenever it starts, and what the probe needs besides
    code = "import sys, click; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"

    def imported(statement: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", code.format(statement)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert imported("import celery_ha.cli") == {"celery_ha", "celery_ha.cli"}
    ours = {name for name in imported("import celery_ha.cli.probe") if name.startswith(("celery", "kombu", "redis"))}
    assert ours - {"celery_ha", "celery_ha.cli"} == {
        "celery_ha.cli.probe",
        "celery_ha.errors",
        *(f"celery_ha.probe{part}" for part in ("", ".folder", ".look", ".sign")),
    }


def test_the_command_line_says_the_same(solo, monkeypatch):
    scene, worker, probe = solo
    folder = scene.fleet.environment["CELERY_HA_PROBE_DIR"]
    monkeypatch.setenv("CELERY_HA_PROBE_DIR", folder)
    assert ask_ha(scene.probe.app, "probe")["node"] == worker.name
    assert json.loads(probe.run("--json").stdout) == ask_ha(scene.probe.app, "probe", "--ready")
