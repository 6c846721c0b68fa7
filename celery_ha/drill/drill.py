"""Puts up the workers of a drill, plays, and takes everything away again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery_ha.brokers.connect import access_to
from celery_ha.drill.place import APP, NAME, SHARDS, Place
from celery_ha.inspect.desk import UNANSWERED
from celery_ha.trial.fleet import Crew, Fleet
from celery_ha.trial.probe import LEDGER, Work
from celery_ha.trial.report import Report
from celery_ha.trial.scene import GaveUp, Plan, play
from celery_ha.trial.setting import leave_nothing, no_more_interrupts
from celery_ha.trial.stage import Stage, refuse_strangers
from celery_ha.trial.traces import Traces, traces_of
from celery_ha.trial.view import View
from celery_ha.trial.watch import Watch


class LeftBehind(Exception):
    """Something of the drill is still on the servers; the message says what."""


def perform(
    app: Any, where: str, place: Place, plan: Plan, folder: Path, view: View, *, concurrency: int, pool: str | None
) -> Report:
    """Hold a drill.

    Args:
        app: the user's, of this process; it is of no other use afterwards.
        where: its name, as after ``celery -A``.
        place: on the app's servers.
        plan: what to play.
        folder: for logs and ledger.
        view: where to show it.
        concurrency: of each worker.
        pool: Celery's name of the pool; None: what the app says.

    Raises:
        ConfigError: the app has no HA, or its broker or store cannot be used.
        StoreUnavailable: the broker or the store does not answer.
        NotOurs: somebody else would take part.
        GaveUp: the workers did not come up, or a server went away in the middle.
        WorkerGone: one ended by itself.
        LeftBehind: it could not clean up.

    **Failure:** a drill that is killed (SIGKILL) leaves keys that begin with its place's name; its workers end
    themselves.
    """
    work = place.occupy(app)
    left: list[str] = []
    with ExitStack() as stack:
        watch = Watch(app, work.queue, work.shards)
        stack.callback(watch.close)
        refuse_strangers(watch.see(), ())
        traces = traces_of(app, work.queue, SHARDS, place.exchanges)
        stack.callback(lambda: left.extend(_cleaned(place, traces, view)))
        ledger = folder / "ledger"
        ledger.mkdir()
        environment = {APP: where, NAME: place.name, LEDGER: str(ledger)}
        names = tuple(f"w{number}@drill" for number in range(1, plan.workers + 1))
        fleet = stack.enter_context(
            Fleet(Crew("celery_ha.drill.app", work.queue, names, concurrency, pool, environment), folder)
        )
        stack.callback(no_more_interrupts)
        stage = Stage(fleet, watch, ledger, view, plan.tasks * plan.rounds)
        with view.live():
            report = _played(stage, work, access_to(app).url, plan)
    if left:
        raise LeftBehind(_told(place, left))
    return report


def _played(stage: Stage, work: Work, server: str, plan: Plan) -> Report:
    try:
        return play(stage, work, server, plan)
    except UNANSWERED as exc:
        raise GaveUp(f"a server went away in the middle: {' '.join(str(exc).split())}") from exc


def _cleaned(place: Place, traces: tuple[Traces, ...], view: View) -> Sequence[str]:
    left = leave_nothing(traces)
    if left:
        view.say(_told(place, left))  # whatever else is said at the end
    return left


def _told(place: Place, left: Sequence[str]) -> str:
    return f"left of {place.name} on the servers: {', '.join(left[:10])}"


def new_place() -> Place:
    """One where nobody was before."""
    return Place(f"celery-ha-drill-{secrets.token_hex(4)}")
