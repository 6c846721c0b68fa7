"""What a probe concludes from a worker's sign of life."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from celery_ha.probe.folder import path_of, signs, tidy, write
from celery_ha.probe.look import RED, UNCLEAR, WELL, look
from celery_ha.probe.sign import Sign, dump, judge, load

pytestmark = pytest.mark.unit

NOW = 1000.0
#: What every interpreter has imported once it has started, and the clock.
LIGHT = {"celery_ha", "__future__", "time", "os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc"}


def sign(**changes) -> Sign:
    """A worker in good health that wrote a second ago and has a minute's patience."""
    well = {"lease": "a", "written": NOW - 1, "trusted_until": NOW + 5, "pulse": NOW - 1, "connected": True}
    return Sign("w1@host", changes.pop("pid", 1), 60.0, **{**well, **changes})


@pytest.mark.parametrize(
    ("changes", "live", "says"),
    [
        ({"trusted_until": None}, True, "is the store away?"),
        ({"trusted_until": NOW}, True, "is the store away?"),
        ({"connected": False}, True, "not connected"),
        ({"draining": True}, True, "drains"),
        ({"lost_since": NOW - 1}, True, "fenced"),
        ({"lost_since": NOW - 61}, False, "no new one for 61 s"),
        ({"pulse": NOW - 61}, False, "main loop has not turned for 61 s"),
        ({"stuck_since": NOW - 61}, False, "not taken the next task for 61 s"),
        ({"written": NOW - 61}, False, "told nothing of itself for 61 s"),
    ],
)
def test_what_is_wrong_is_said_and_only_what_a_restart_helps_is_fatal(changes, live, says):
    findings = judge(sign(**changes), NOW, runs=True)
    assert says in "; ".join(finding.text for finding in findings)
    assert all(not finding.fatal for finding in findings) is live


@pytest.mark.parametrize("changes", [{}, {"pulse": None}, {"pulse": NOW - 59}, {"stuck_since": NOW - 59}])
def test_nothing_is_wrong_with_a_worker_in_good_health(changes):
    assert judge(sign(**changes), NOW, runs=True) == []


def test_a_worker_that_waits_for_its_first_lease_is_not_fatal_however_long_it_takes():
    waiting = sign(lease="", written=NOW - 600, trusted_until=None, pulse=None, connected=False)
    assert not any(finding.fatal for finding in judge(waiting, NOW, runs=True))


def test_a_process_that_is_gone_is_fatal_whatever_it_wrote():
    assert [finding.fatal for finding in judge(sign(), NOW, runs=False)] == [True]


@pytest.mark.parametrize("changes", [{}, {"trusted_until": None, "pulse": None, "draining": True}, {"lease": ""}])
def test_a_sign_is_read_as_it_was_written(changes):
    one = sign(**changes)
    assert vars(load(dump(one))) == vars(one)


@pytest.mark.parametrize("text", ["", "rubbish", "schema 2\npid 1", "schema 1\npid 1", "schema 1\npid x"])
def test_what_is_no_sign_is_refused(text):
    with pytest.raises(ValueError):
        load(text)


def put(folder, node: str, pid: int, **changes) -> None:
    fields = {**vars(sign(**changes)), "node": node, "pid": pid}
    write(path_of(str(folder), node, pid), dump(Sign(**fields)))


@pytest.fixture
def gone() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_dead_namesake_does_not_stand_in_the_way(tmp_path, gone, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: NOW)
    put(tmp_path, "w1@host", gone)
    put(tmp_path, "w1@host", os.getpid())
    assert look(None, str(tmp_path), live=False, as_json=False) == (WELL, "w1@host is ready")


def test_two_workers_are_told_apart_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: NOW)
    put(tmp_path, "w1@host", os.getpid())
    put(tmp_path, "w2@host", os.getppid(), trusted_until=None)
    assert look(None, str(tmp_path), live=False, as_json=False)[0] == UNCLEAR
    assert look("w1", str(tmp_path), live=False, as_json=False)[0] == WELL
    assert look("w2@host", str(tmp_path), live=False, as_json=False)[0] == RED
    assert look("w2@host", str(tmp_path), live=True, as_json=False)[0] == WELL
    code, says = look("w3", str(tmp_path), live=True, as_json=False)
    assert (code, says) == (RED, f"no worker w3 has told how it is in {tmp_path}")


def test_a_new_worker_clears_away_what_dead_ones_of_its_name_left(tmp_path, gone):
    for node, pid in (("w1@host", gone), ("w1@host", os.getpid()), ("w1@host.example", gone), ("w2@host", gone)):
        put(tmp_path, node, pid)
    tidy(str(tmp_path), "w1@host")
    assert {path.rpartition("/")[2] for path in signs(str(tmp_path))} == {
        f"w1@host.{os.getpid()}.sign",
        f"w1@host.example.{gone}.sign",
        f"w2@host.{gone}.sign",
    }


def test_the_probe_imports_neither_celery_nor_anything_that_takes_as_long_as_itself():
    code = "import sys; before = set(sys.modules); import celery_ha.probe.__main__; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {name.partition(".")[0] for name in imported} <= LIGHT
