"""Which firing an entry calls for, and what becomes of what was missed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery
from celery.schedules import crontab, schedule

from celery_ha.beat.due import CATCH_UP_WITHIN, Due, clock_went_back, due_after, judge, moment, present, stamp

T = datetime(2025, 6, 1, 12, tzinfo=timezone.utc).timestamp()
HOUR = 3600.0


@pytest.fixture(scope="module")
def app():
    made = Celery("due", set_as_current=False)
    made.conf.timezone = "Europe/Berlin"
    return made


@pytest.fixture
def every(app):
    return lambda seconds: schedule(seconds, app=app)


def decide(schedule, last, now, *, catch_up="one", grace=20.0, first=False):
    return judge(schedule, last, now, grace=grace, catch_up=catch_up, first=first)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def test_firings_of_an_interval_keep_their_distance_however_late_they_are(every):
    dues, last = [], T
    for late in (0.0, 0.4, 3.2, 0.01):
        due = decide(every(1.0), last, last + 1.0 + late)
        last = due.at
        dues.append(due.at - T)

    assert dues == [1.0, 2.0, 3.0, 4.0]


def test_the_due_time_does_not_depend_on_the_clock_that_looks(every, app):
    for entry in (every(7.5), crontab(minute="*/5", app=app)):
        assert len({due_after(entry, T, T + skew) for skew in (-300.0, 0.0, 0.123, 4000.0)}) == 1


@pytest.mark.parametrize("catch_up", ["one", "all", "none"])
def test_what_falls_into_a_change_of_office_was_not_missed(every, catch_up):
    assert decide(every(1.0), T, T + 20.9, catch_up=catch_up) == Due(T + 1.0)


@pytest.mark.parametrize(
    ("catch_up", "expected"), [("one", Due(T + HOUR)), ("all", Due(T + 1)), ("none", Due(T + HOUR, fires=False))]
)
def test_what_was_missed_is_caught_up_as_told(every, catch_up, expected):
    assert decide(every(1.0), T, T + HOUR, catch_up=catch_up) == expected


def test_all_ends_at_a_day(every):
    now = T + 10 * CATCH_UP_WITHIN
    assert decide(every(60.0), T, now, catch_up="all") == Due(now - CATCH_UP_WITHIN + 60.0)


def test_a_crontab_that_was_missed_fires_once_and_goes_on_at_its_minute(app):
    daily = crontab(minute=0, hour=4, app=app)
    now = at("2025-06-03T09:13:07")
    due = decide(daily, at("2025-06-01T02:00:00"), now)

    assert due == Due(now)
    assert due_after(daily, due.at, now) == at("2025-06-04T02:00:00")


@pytest.mark.parametrize(
    ("start", "dues"),
    [
        # Clocks go back at 01:00 UTC: 02:30 comes twice.
        ("2025-10-25T12:00:00", ["2025-10-26T00:30:00", "2025-10-27T01:30:00", "2025-10-28T01:30:00"]),
        # Clocks go forward at 01:00 UTC: 02:30 does not come.
        ("2025-03-29T12:00:00", ["2025-03-30T01:30:00", "2025-03-31T00:30:00", "2025-04-01T00:30:00"]),
    ],
)
def test_daylight_saving_neither_repeats_nor_skips_a_daily_entry(app, start, dues):
    daily, last, found = crontab(minute=30, hour=2, app=app), at(start), []
    for _ in dues:
        last = due_after(daily, last, last)
        found.append(last)

    assert found == [at(due) for due in dues]


def test_an_hourly_interval_knows_no_daylight_saving(every):
    for start in ("2025-10-25T22:45:00", "2025-03-29T22:45:00"):
        assert due_after(every(HOUR), at(start), at(start)) - at(start) == HOUR


def test_a_beat_with_a_slow_clock_waits_for_what_a_fast_one_left(every, app):
    fast = decide(every(10.0), T, T + 10.0)
    slow_now = T + 5.0

    assert due_after(every(10.0), fast.at, slow_now) == T + 20.0
    assert not clock_went_back(every(10.0), fast.at, slow_now, grace=20.0)


def test_a_crontab_fired_before_the_clock_was_set_back_is_not_repeated(app):
    daily = crontab(minute=0, hour=4, app=app)
    fired = at("2025-06-02T02:00:00")

    assert due_after(daily, fired, fired - HOUR) == at("2025-06-03T02:00:00")
    assert not clock_went_back(daily, fired, fired - HOUR, grace=20.0)


def test_an_interval_does_not_stand_still_when_the_clock_was_set_back(every):
    assert clock_went_back(every(1.0), T, T - HOUR, grace=20.0)


def test_a_schedule_of_one_firing_fires_once(app):
    class Once(schedule):
        def remaining_estimate(self, last_run_at):
            return datetime.fromtimestamp(T, timezone.utc) - self.now()

    once = Once(1, app=app)
    assert decide(once, T - HOUR, T + 1, first=True) == Due(T)
    assert decide(once, T, T + 1) is None
    assert decide(once, T + HOUR, T + HOUR + 1, first=True) == Due(T + HOUR + 1), "set for a time before it was seen"


def test_a_schedule_that_cannot_tell_fires_when_it_says_so(every):
    class Moody(schedule):
        def remaining_estimate(self, last_run_at):
            raise NotImplementedError

    assert due_after(Moody(1), T, T) is None
    assert decide(Moody(1), T, T + 5) == Due(T + 5)


def test_a_naive_clock_is_taken_for_utc(app):
    noon = datetime.fromtimestamp(T, timezone.utc).replace(tzinfo=None)
    naive = schedule(timedelta(seconds=5), nowfun=lambda: noon, app=app)

    assert due_after(naive, T, T) == T + 5
    assert present(naive) == T
    assert stamp(moment(T, naive)) == T
