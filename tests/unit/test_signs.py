"""What a worker writes of itself as its life goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from celery_ha.probe.folder import signs
from celery_ha.probe.sign import Sign, judge, load
from celery_ha.worker import signs as written
from celery_ha.worker.signs import Signs

pytestmark = pytest.mark.unit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(written, "monotonic", made)
    return made


@pytest.fixture
def told(tmp_path):
    """The one sign that is there."""

    def read() -> Sign:
        (path,) = signs(str(tmp_path))
        return load(Path(path).read_text(encoding="utf-8"))

    return read


def life(*, fenced: bool = False, until: float = 110.0, pulse: float | None = 99.0):
    return SimpleNamespace(keeper=SimpleNamespace(lease="a", trusted_until=until), fenced=fenced, pulse=pulse)


def fatal(sign: Sign, now: float) -> list[str]:
    return [finding.text for finding in judge(sign, now, runs=True) if finding.fatal]


@pytest.fixture
def mine(clock, tmp_path) -> Signs:
    made = Signs("w1@host", str(tmp_path), 60.0)
    made.begin()
    return made


def test_a_worker_is_neither_ready_nor_hopeless_before_its_first_lease(mine, told):
    assert judge(told(), 500.0, runs=True)
    assert fatal(told(), 500.0) == []


def test_a_lease_that_is_lost_is_fatal_when_no_new_one_comes(mine, clock, told):
    mine.show_life(life(fenced=True, until=float("-inf")))
    assert fatal(told(), 150.0) == []
    assert fatal(told(), 161.0) == ["the lease is lost and there has been no new one for 61 s"]
    # But not while it is the store that is away
    clock.now = 155.0
    mine.waits_for_store()
    assert fatal(told(), 161.0) == []
    # And a new lease ends it
    clock.now = 160.0
    mine.show_life(life(until=170.0, pulse=160.0))
    mine.show(connected=True)
    assert judge(told(), 161.0, runs=True) == []


def test_waiting_for_the_store_is_no_loss_where_none_was(mine, told):
    mine.waits_for_store()
    assert told().lost_since is None


def test_a_pool_is_wedged_when_one_task_waits_for_a_free_process_for_too_long(mine, clock, told):
    assert mine.pool({"a.1"}, free=True) is False
    clock.now += 61
    # Said once
    assert [mine.pool({"a.1", "a.2"}, free=True) for _ in range(2)] == [True, False]
    mine.show_life(life(until=170.0, pulse=161.0))
    assert fatal(told(), 162.0) == ["the pool has a free process and has not taken the next task for 62 s"]
    # And well again once it takes it
    mine.pool({"a.2"}, free=True)
    mine.show_life(life(until=170.0, pulse=161.0))
    assert fatal(told(), 162.0) == []


def test_a_pool_that_is_busy_or_takes_one_task_after_the_other_is_not_wedged(mine, clock):
    for number in range(100):
        clock.now += 50
        assert mine.pool({f"a.{number}", f"a.{number + 1}"}, free=True) is False
    assert mine.pool({"b.1"}, free=True) is False
    clock.now += 50
    assert mine.pool({"b.1"}, free=False) is False
    clock.now += 50
    assert mine.pool({"b.1"}, free=True) is False


def test_a_folder_that_cannot_be_written_stops_nobody_and_is_said_once(clock, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    mine = Signs("w1@host", str(tmp_path / "file"), 60.0)
    for _ in range(3):
        mine.show(connected=True)
    assert [record.message for record in caplog.records if "set ha_probe_dir" in record.message] != []
    assert len(caplog.records) == 1


def test_nothing_is_left_after_goodbye(mine, tmp_path):
    mine.show(draining=True)
    mine.remove()
    mine.show(connected=False)
    assert signs(str(tmp_path)) == []
