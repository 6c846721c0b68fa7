"""``python -m celery_ha.demo``."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import click

from celery_ha.demo.server import NoServer, running
from celery_ha.demo.settings import BROKER, CONCURRENCY, LEASE_TTL, PREFIX, SHARDS, STORE
from celery_ha.errors import ConfigError, StoreUnavailable
from celery_ha.rabbitmq import is_rabbitmq
from celery_ha.trial.fleet import Crew, Fleet, NotOurs, WorkerGone
from celery_ha.trial.probe import LEDGER
from celery_ha.trial.report import Report, lines
from celery_ha.trial.scene import GaveUp, Plan, play
from celery_ha.trial.setting import leave_nothing, no_more_interrupts, signals_as_interrupts, working_folder
from celery_ha.trial.stage import Stage
from celery_ha.trial.traces import traces_of
from celery_ha.trial.view import View, make_view
from celery_ha.trial.watch import Watch

#: Exit codes, besides 0.
BAD, UNUSABLE, INTERRUPTED = 1, 2, 130
REDIS = ("redis://", "rediss://", "redis+socket://", "sentinel://")
#: What ``--broker`` and ``--store`` may be.
BROKERS = (*REDIS, "amqp://", "amqps://", "pyamqp://")
STORES = (*REDIS, "zookeeper://", "zookeepers://")


def _one_of(schemes: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
        if url is not None and not url.startswith(schemes):
            raise click.BadParameter(f"write a URL that begins with one of {', '.join(schemes)}")
        return url

    return check


@click.command()
@click.option(
    "--broker",
    metavar="URL",
    callback=_one_of(BROKERS),
    help="Use this Redis, Valkey or RabbitMQ instead of a private Redis or Valkey.",
)
@click.option(
    "--store", metavar="URL", callback=_one_of(STORES), help="Keep leases and locks in this Redis or ZooKeeper."
)
@click.option("--tasks", type=click.IntRange(10, 100_000), default=300, show_default=True, help="How many tasks.")
@click.option("--workers", type=click.IntRange(2, 32), default=3, show_default=True, help="How many workers.")
@click.option("--freeze", is_flag=True, help="SIGSTOP one worker instead of SIGKILL, and SIGCONT it later.")
@click.option("--seed", type=int, help="Repeat the choices of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@click.option("--keep", is_flag=True, help="Keep the workers' logs and the tasks' ledger.")
def main(
    broker: str | None,
    store: str | None,
    tasks: int,
    workers: int,
    *,
    freeze: bool,
    seed: int | None,
    as_json: bool,
    keep: bool,
) -> None:
    """Three workers, a few hundred locked tasks, one worker struck down: what is lost?

    Exits with 1 if a task was lost, two tasks had one lock at a time, or a task ran twice that had
    not been running on the worker that died.
    """
    if broker is not None and is_rabbitmq(broker) and store is None:
        raise click.UsageError("RabbitMQ keeps no leases: name a --store, such as zookeeper://localhost:2181/demo")
    view = make_view()
    plan = Plan(tasks, workers, secrets.randbelow(10**6) if seed is None else seed, LEASE_TTL, freeze=freeze)
    try:
        with signals_as_interrupts(), working_folder("celery-ha-demo-", view, keep=keep) as folder:
            report = _perform(plan, broker, store, folder, view)
    except (NoServer, ConfigError, StoreUnavailable) as exc:
        _stop(UNUSABLE, str(exc))
    except (GaveUp, WorkerGone, NotOurs) as exc:
        _stop(BAD, str(exc))
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; every process it started is ended")
    print(json.dumps(report.as_dict(), indent=2) if as_json else "\n" + "\n".join(lines(report)))
    sys.exit(0 if report.good else BAD)


def _perform(plan: Plan, broker: str | None, store: str | None, folder: Path, view: View) -> Report:
    """Put up the stage, play, and take everything down again, whatever happens."""
    with ExitStack() as stack:
        server = stack.enter_context(running(broker, folder))
        prefix = f"celery-ha-demo-{secrets.token_hex(4)}:"
        what = f"{server.what}, leases in {store.rpartition('@')[2]}" if store else server.what
        view.say(f"Server: {what}. Seed: {plan.seed}")
        os.environ.update({BROKER: server.url, STORE: store or "", PREFIX: prefix})
        from celery_ha.demo import app as demo  # noqa: PLC0415 - it reads the environment

        watch = Watch(demo.app, demo.QUEUE, SHARDS)
        stack.callback(watch.close)
        stack.callback(leave_nothing, traces_of(demo.app, demo.QUEUE, SHARDS))
        ledger = folder / "ledger"
        ledger.mkdir()
        environment = {LEDGER: str(ledger)}
        names = tuple(f"w{number}@demo" for number in range(1, plan.workers + 1))
        crew = Crew("celery_ha.demo.app", demo.QUEUE, names, CONCURRENCY, "prefork", environment)
        fleet = stack.enter_context(Fleet(crew, folder))
        stack.callback(no_more_interrupts)
        stage = Stage(fleet, watch, ledger, view, plan.tasks)
        with view.live():
            return play(stage, demo.WORK, what, plan)


def _stop(code: int, message: str) -> NoReturn:
    print(f"celery_ha.demo: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
