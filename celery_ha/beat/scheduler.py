"""The scheduler that ``celery beat -S celery_ha.beat:Scheduler`` runs: the user's own, fired by one beat of many."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic
from typing import Any

from celery import beat
from celery.utils.imports import symbol_by_name

from celery_ha.beat.due import Due, clock_went_back, due_after, judge, moment, present, stamp
from celery_ha.beat.embedded import follow_parent
from celery_ha.beat.outbox import Outbox
from celery_ha.beat.seat import OFFICE, Seat
from celery_ha.errors import ConfigError, LockLost, StoreError, StoreUnavailable
from celery_ha.model import Firing, Term

logger = logging.getLogger(__name__)

#: Seconds between two looks of a beat that is not in office whether it is.
IDLE = 0.2
#: Seconds between two looks of such a beat at what the others fired, and of the one in office whether it still is.
FOLLOW = 1.0


class Scheduler:
    """Fires the entries of another scheduler, ``ha_beat_scheduler``, while this beat is in office.

    What that one has (``schedule``, ``sync``, ``info``, ...) is reached through this one. Its ``tick`` is not used:
    an entry's ``is_due`` says whether it wants to fire, :mod:`celery_ha.beat.due` which firing that is.

    Args:
        app: with HA installed.
        lazy: for its description only; nothing runs.
        kwargs: as Celery passes them on, for the other scheduler.

    Raises:
        ConfigError: HA is not installed in the app, or ``ha_beat_scheduler`` cannot be imported.

    **Failure:** see :mod:`celery_ha.beat`. Without the store nothing is fired; the beat goes on when it is back.
    """

    def __init__(self, app: Any, *, lazy: bool = False, **kwargs: Any) -> None:
        if getattr(app, "ha", None) is None:
            raise ConfigError("celery_ha.beat:Scheduler needs HA(app): write it where the app is made")
        self._config = app.ha.config
        self.inner = _inner(self._config.beat_scheduler)(app=app, lazy=lazy, **kwargs)
        if lazy:
            return
        if type(self.inner) is beat.Scheduler:
            # Celery's own drops them again when it merges beat_schedule.
            self.inner.install_default_entries(self.inner.schedule)
        follow_parent()
        self._outbox = Outbox(self.inner, self._config.prefix)
        self._seat = Seat(app)
        self._grace = 2 * self._config.lease_ttl
        #: What every entry fired last, as far as this beat knows.
        self._known: dict[str, Firing] = {}
        self._term: Term | None = None
        self._cut_off = False
        self._followed = float("-inf")
        #: Local monotonic time until which no entry wants anything.
        self._idle_until = float("-inf")
        #: Entry as it was looked at, and local monotonic time until which that look holds; by name.
        self._looked: dict[str, tuple[Any, float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def tick(self) -> float:
        """Fire what is due, if this beat is in office. Returns the seconds until the next tick.

        Raises:
            SystemExit: it is closed. Celery's signal handler closes it and raises this wherever the loop is; in the
                middle of a publish redis-py and Celery make an error of it, and the loop goes on.
        """
        if self._seat.closed:
            raise SystemExit
        term = self._seat.term
        self._seat.pulse(0.0)
        wait = IDLE
        try:
            if term is not None:
                wait = self._beat(term)
            else:
                self._follow()
            self._cut_off = False
        except LockLost:
            if term is not None:
                self._seat.lost(term)
        except (StoreError, StoreUnavailable) as error:
            if not self._cut_off:
                logger.warning("Nothing is fired until the store answers: %s", error)
            self._cut_off = True
        self._seat.pulse(wait)
        return wait

    def close(self) -> None:
        """Hand the office on, then close the schedule; harmless to repeat."""
        self._seat.close()
        self.inner.close()

    def _follow(self) -> None:
        """Know what the others fire, in case that the store loses its memory."""
        if monotonic() - self._followed >= FOLLOW:
            self._known.update(self._seat.store.firings.read(OFFICE).firings)
            self._followed = monotonic()
        self._term = None

    def _beat(self, term: Term) -> float:
        if self._term != term:
            self._take_office(term)
        elif (left := self._idle_until - monotonic()) > 0:
            return min(left, FOLLOW)
        schedule = self.inner.schedule
        self._forget(term, tuple(entry for entry in self._known if entry not in schedule))
        waits = [self._visit(term, entry) for entry in tuple(schedule.values())]
        wait = min([*waits, float(self.inner.max_interval)])
        self._idle_until = monotonic() + wait
        # The office may be lost, and come back with a firing that another beat left unsent.
        return min(wait, FOLLOW)

    def _take_office(self, term: Term) -> None:
        self._known.update(self._seat.store.firings.read(OFFICE).firings)
        self._looked.clear()
        self._term = term

    def _forget(self, term: Term, gone: tuple[str, ...]) -> None:
        """One that comes back to the schedule has missed nothing while it was not there."""
        if gone:
            self._seat.store.firings.drop(term, gone)
        for entry in gone:
            del self._known[entry]

    def _visit(self, term: Term, entry: Any) -> float:
        """Look at an entry, unless it said how long the last look holds; returns the seconds until the next."""
        seen, until = self._looked.get(entry.name, (None, 0.0))
        left = until - monotonic()
        if seen is entry and left > 0:
            return left
        self._looked.pop(entry.name, None)
        last = self._known.get(entry.name) or self._meet(term, entry)
        if not last.sent:
            return self._send(term, entry, last)
        entry.last_run_at = moment(last.due, entry.schedule)
        due, wait = self._due(entry, last)
        if due is None:
            wait = min(wait, float(self.inner.max_interval))
            self._looked[entry.name] = (entry, monotonic() + wait)
            return wait
        claim = replace(
            last,
            number=last.number + due.fires,
            due=due.at,
            sent=not due.fires,
            term=term.token,
            by=self._seat.name,
            next=due_after(entry.schedule, due.at, due.at),
        )
        if self._write(term, last, claim) and due.fires:
            return self._send(term, entry, claim)
        return IDLE

    def _due(self, entry: Any, last: Firing) -> tuple[Due | None, float]:
        """What the entry calls for, and if nothing, for how many seconds."""
        try:
            is_due, wait = self.inner.is_due(entry)
            now = present(entry.schedule)
            if is_due:
                due = judge(
                    entry.schedule,
                    last.due,
                    now,
                    grace=self._grace,
                    catch_up=self._config.beat_catch_up,
                    first=not last.number,
                )
                return due, self.inner.max_interval
            if clock_went_back(entry.schedule, last.due, now, grace=self._grace):
                return Due(now, fires=False), 0.0
        except Exception:
            logger.exception("Cannot tell when %r is due; it is asked again later", entry.name)
            return None, self.inner.max_interval
        return None, wait if isinstance(wait, (int, float)) else self.inner.max_interval

    def _meet(self, term: Term, entry: Any) -> Firing:
        """Share since when a new entry is waited for, or a beat that restarts often would never see it due."""
        since = stamp(entry.last_run_at)
        new = Firing(entry.name, 0, since, sent=True, term=term.token, next=due_after(entry.schedule, since, since))
        self._write(term, None, new)
        return self._known[entry.name]

    def _send(self, term: Term, entry: Any, firing: Firing) -> float:
        """Send a claimed firing and mark it; a broker that is away leaves it to the next in office."""
        if not self._seat.trusts(term):
            return IDLE
        if not self._outbox.send(entry, firing):
            logger.warning("%r was not sent; another beat may reach the broker", entry.name)
            self._seat.resign(term)
            return IDLE
        self.inner.reserve(entry)
        self._write(term, firing, replace(firing, sent=True))
        return 0.0

    def _write(self, term: Term, old: Firing | None, new: Firing) -> bool:
        there = self._seat.store.firings.replace(term, old, new)
        self._known[new.entry] = there
        return bool(there == new)


def _inner(path: str) -> Any:
    try:
        return symbol_by_name(path)
    except (AttributeError, ImportError, ValueError) as error:
        raise ConfigError(f"ha_beat_scheduler is {path!r}, which cannot be imported: {error}") from error
