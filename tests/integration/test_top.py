"""`ha top` on a living fleet: as lines, as JSON, in a terminal, and through an outage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_ha import HA
from tests.support.command import run_ha
from tests.support.fleet import ROOT, eventually
from tests.support.form import check_form
from tests.support.scene import PROBE, Scene
from tests.support.server import RedisServer, free_port


@pytest.fixture
def duo(shared_scene: Scene) -> Scene:
    shared_scene.top_up(2)
    shared_scene.wait_idle()
    return shared_scene


@contextmanager
def watching(*options: str, out: Any, err: Any = None, app: str = PROBE, **environment: str) -> Iterator[Any]:
    """The command in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", app, "ha", "top", "--interval", "0.1", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=out,
        stderr=err,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def left(process: Any) -> int:
    """What it exits with after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return int(process.wait(30))


def test_each_snapshot_is_a_line_of_json_in_the_documented_form(duo: Scene):
    result = run_ha(duo.probe.app, "top", "--json", "--count", "2", "--interval", "0.1")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = map(json.loads, result.stdout.splitlines())
    for found in (first, second):
        check_form("top", found)
        assert {node["name"] for node in found["nodes"]} == {worker.name for worker in duo.live}
        assert found["leader"]["node"] == duo.leader.name
    assert first["at"] < second["at"]


def test_a_lock_that_is_waited_for_is_named_with_its_holder(duo: Scene):
    batch = duo.batch()
    held, parked = batch + "held", batch + "parked"
    duo.publish("charge", [held], batch, 3)
    duo.wait_started([held])
    duo.publish("charge", [parked], batch, 0)

    def seen() -> Any:
        (text,) = run_ha(duo.probe.app, "top", "--json", "--count", "1").stdout.splitlines()
        found = json.loads(text)
        check_form("top", found)
        return found["locks"]

    (lock,) = eventually(seen, why="somebody waits")
    assert (lock["name"], lock["waiting"]) == (f"account:{batch}", 1)
    assert (lock["holder"]["state"], lock["holder"]["slot"]) == ("held", 0)
    assert lock["holder"]["node"] in {worker.name for worker in duo.live}
    duo.wait_ended([held, parked])
    assert seen() == []


def test_lines_tell_of_a_death_and_its_recovery(duo: Scene, tmp_path: Path):
    victim = next(worker for worker in duo.live if worker != duo.leader)
    told = tmp_path / "told"
    with told.open("wb") as out, watching(out=out, **duo.fleet.environment) as top:
        eventually(lambda: "nodes: 2 live" in told.read_text(), why="two nodes")
        duo.kill(victim)
        eventually(lambda: f"{victim.name}: connections gone" in told.read_text(), why="the failover")
        eventually(lambda: "nodes: 1 live  " in told.read_text(), why="one node")
        assert left(top) == 0
    text = told.read_text()
    assert f"{victim.name}: " in text
    assert "-> gone" in text
    assert "\x1b" not in text
    assert "Traceback" not in text


def test_a_terminal_shows_a_picture(duo: Scene):
    inner, outer = os.openpty()
    shown = ""

    def read() -> bool:
        nonlocal shown
        shown += os.read(inner, 65_536).decode(errors="replace")
        return shown.count("lease age") > 2

    size = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with watching(out=outer, err=outer, **duo.fleet.environment, **size) as top:
        os.close(outer)
        eventually(read, why="three pictures")
        top.send_signal(signal.SIGINT)
        with suppress(OSError):  # how Linux says that the other side was closed
            while True:
                shown += os.read(inner, 65_536).decode(errors="replace")
        assert top.wait(30) == 0
    os.close(inner)
    assert "───" in shown
    assert all(worker.name in shown for worker in duo.live)
    assert "failovers:" in shown
    assert "Traceback" not in shown
    # The cursor is given back
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_an_outage_is_said_and_outlived(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis()
    (tmp_path / "lonely.py").write_text(
        f'from celery import Celery\nfrom celery_ha import HA\napp = Celery("lonely", broker="{server.url}")\nHA(app)\n'
    )
    out, err = tmp_path / "out", tmp_path / "err"

    def lines(path: Path) -> int:
        return path.read_text().count("\n")

    with (
        out.open("wb") as to_out,
        err.open("wb") as to_err,
        watching(
            "--json", out=to_out, err=to_err, app="lonely", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])
        ) as top,
    ):
        eventually(lambda: lines(out), why="an answer")
        server.stop()
        eventually(lambda: "asking again" in err.read_text(), why="the outage is said")
        before = lines(out)
        server.start()
        eventually(lambda: lines(out) > before, why="an answer again")
        assert left(top) == 0
    assert all(text.startswith("Error: ") for text in err.read_text().splitlines())
    for text in out.read_text().splitlines():
        check_form("top", json.loads(text))


def test_a_server_that_never_answered_is_one_line():
    app = Celery("lonely", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    HA(app)
    result = run_ha(app, "top")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "could not be reached" in result.stderr


@pytest.mark.parametrize("arguments", [("--interval", "0"), ("--count", "0"), ("--count", "many"), ("extra",)])
def test_misuse(arguments: tuple[str, ...]):
    result = run_ha(Celery("lonely", set_as_current=False), "top", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
