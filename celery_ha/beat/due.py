"""When an entry is due, and what is done about what was missed: pure, and the same on every beat.

A firing is computed from the one before it, which all beats share, and never from the clock of the beat that
happens to look. So beats whose clocks differ agree on what comes next: a fast one fires early and its successor
waits until the next one is due by its own clock; nothing is repeated and nothing is skipped. All times are seconds
since the epoch, which know no daylight saving; a crontab is matched in its own time zone by Celery.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

#: Seconds for which missed firings are made up for, at most.
CATCH_UP_WITHIN = 86_400.0


@dataclass(frozen=True)
class Due:
    """What an entry calls for."""

    #: The entry's ``last_run_at`` from now on.
    at: float
    #: False: nothing is sent, the entry only goes on from there.
    fires: bool = True


def due_after(schedule: Any, last: float, now: float) -> float | None:
    """When a schedule is due for the first time after a firing.

    Args:
        schedule: one of Celery's, or of a class that has ``remaining_estimate`` and ``nowfun`` like theirs.
        last: the firing before.
        now: what the schedule takes for the present.

    Returns:
        None: it cannot be told in advance.
    """
    frozen = copy.copy(schedule)
    then = moment(now, schedule)
    frozen.nowfun = lambda: then
    try:
        remaining: float = frozen.remaining_estimate(moment(last, schedule)).total_seconds()
    except (AttributeError, NotImplementedError, OverflowError, TypeError):
        return None
    # Not with datetimes: between two of one zone Python counts by the wall clock.
    return round(now + remaining, 6)


def judge(schedule: Any, last: float, now: float, *, grace: float, catch_up: str, first: bool) -> Due | None:
    """Decide about an entry that calls itself due.

    Args:
        schedule: the entry's.
        last: its last firing.
        now: what the schedule takes for the present.
        grace: seconds that an office may take to change hands: what is no later than that was not missed, and
            every firing comes.
        catch_up: ``one``, ``all`` or ``none``, for what was missed.
        first: the entry never fired.

    Returns:
        None: it is not due; a schedule of one firing calls for it over and over.
    """
    due = due_after(schedule, last, now)
    if due is None or due > now:
        return Due(now)
    if due <= last and not first:
        return None
    if now - due <= grace:
        return Due(due)
    if catch_up == "all":
        return Due(max(due, due_after(schedule, max(last, now - CATCH_UP_WITHIN), now) or due))
    return Due(now, fires=catch_up == "one")


def clock_went_back(schedule: Any, last: float, now: float, *, grace: float) -> bool:
    """Whether an interval counts from a time that will not come for long: a clock was ahead, or was set back.

    It then counts from now. A crontab names times of the day instead: those that were fired are not repeated.
    """
    return getattr(schedule, "run_every", None) is not None and last - now > grace


def present(schedule: Any) -> float:
    """What a schedule takes for the present; two clocks that differ would make it due over and over."""
    return stamp(schedule.now())


def moment(at: float, schedule: Any) -> datetime:
    """A time as a schedule likes it: aware, in its zone."""
    return datetime.fromtimestamp(at, timezone.utc).astimezone(schedule.now().tzinfo or timezone.utc)


def stamp(at: datetime) -> float:
    """The reverse; Celery takes a naive datetime for UTC."""
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()
