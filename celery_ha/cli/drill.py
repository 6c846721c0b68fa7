"""``ha drill``: kill a worker on purpose, on one's own servers, and see what becomes of its tasks."""

from __future__ import annotations

import json
import secrets

import click

from celery_ha.cli.command import hush
from celery_ha.drill.drill import LeftBehind, new_place, perform
from celery_ha.drill.place import where_is
from celery_ha.inspect.desk import UNANSWERED
from celery_ha.trial.fleet import NotOurs, WorkerGone
from celery_ha.trial.report import lines
from celery_ha.trial.scene import PATIENCE, GaveUp, Plan
from celery_ha.trial.setting import signals_as_interrupts, working_folder
from celery_ha.trial.view import make_view

#: How long a task of a drill takes: long enough to be struck in the middle.
TASK_SECONDS = (0.1, 0.3)


class _Bad(click.ClickException):
    """It was not played to its end, or something is left."""


class _Refused(click.ClickException):
    """It did not begin."""

    exit_code = 2


class _Interrupted(click.ClickException):
    """As a shell says of Ctrl-C."""

    exit_code = 130


@click.command()
@click.option(
    "--kill/--freeze", default=True, show_default=True, help="SIGKILL one worker, or SIGSTOP and later SIGCONT."
)
@click.option("--workers", type=click.IntRange(2, 32), default=3, show_default=True, help="How many it starts.")
@click.option(
    "--tasks", type=click.IntRange(10, 100_000), default=200, show_default=True, help="How many in each round."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=1, show_default=True, help="How often it strikes.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=2, show_default=True, help="Of each worker.")
@click.option("--pool", help="Kind of pool; without it what the app says.")
@click.option("--patience", type=click.FloatRange(1), help="Seconds without any movement after which it gives up.")
@click.option("--seed", type=int, help="Repeat the choices of an earlier drill.")
@click.option("--keep", is_flag=True, help="Keep the workers' logs and the tasks' ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def drill(
    ctx: click.Context,
    *,
    kill: bool,
    workers: int,
    tasks: int,
    rounds: int,
    concurrency: int,
    pool: str | None,
    patience: float | None,
    seed: int | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Start workers of this app, strike one of them, and report what was lost, run twice, or overlapped.

    They are a fleet of their own, on a queue and under keys of their own; workers, queues and tasks that are there
    already are not touched, and nothing is left behind. Exits with 1 if anything went wrong, with 2 if it
    could not begin.
    """
    app, view = ctx.obj.app, make_view()
    hush()
    try:
        where = getattr(ctx.obj, "where", None) or where_is(app)
        ttl = app.ha.config.lease_ttl if getattr(app, "ha", None) else PATIENCE
        plan = Plan(
            tasks=tasks,
            workers=workers,
            seed=secrets.randbelow(10**6) if seed is None else seed,
            lease_ttl=ttl,
            freeze=not kill,
            rounds=rounds,
            task_seconds=TASK_SECONDS,
            patience=patience or max(PATIENCE, 3 * ttl),
        )
        with signals_as_interrupts(), working_folder("celery-ha-drill-", view, keep=keep) as folder:
            place = new_place()
            view.say(f"Drill {place.name}. Seed: {plan.seed}")
            report = perform(app, where, place, plan, folder, view, concurrency=concurrency, pool=pool)
    except NotOurs as exc:
        raise _Refused(str(exc)) from exc
    except (GaveUp, WorkerGone, LeftBehind) as exc:
        raise _Bad(str(exc)) from exc
    except UNANSWERED as exc:
        raise _Refused(" ".join(str(exc).split())) from exc
    except KeyboardInterrupt:
        raise _Interrupted("interrupted: its workers are ended, and nothing is left on the servers") from None
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else "\n" + "\n".join(lines(report)))
    ctx.exit(0 if report.good else 1)
