"""``python -m celery_ha.demo``."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from kombu.exceptions import OperationalError

from celery_ha.demo.fleet import Fleet, WorkerGone
from celery_ha.demo.report import Report, lines
from celery_ha.demo.scene import GaveUp, Plan, play
from celery_ha.demo.server import NoServer, running
from celery_ha.demo.settings import BROKER, KEY_PREFIX, LEDGER, QUEUE, SHARDS, STORE
from celery_ha.demo.stage import Stage
from celery_ha.demo.traces import Traces
from celery_ha.demo.view import View, make_view
from celery_ha.demo.watch import Watch
from celery_ha.errors import ConfigError, StoreError, StoreUnavailable
from celery_ha.inspect.desk import Desk
from celery_ha.rabbitmq import is_rabbitmq

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
    plan = Plan(tasks, workers, secrets.randbelow(10**6) if seed is None else seed, freeze=freeze)
    try:
        with _signals_as_interrupts(), _folder(view, keep=keep) as folder:
            report = _perform(plan, broker, store, folder, view)
    except (NoServer, ConfigError) as exc:
        _stop(UNUSABLE, str(exc))
    except (GaveUp, WorkerGone, StoreError) as exc:
        _stop(BAD, str(exc))
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; every process it started is ended")
    print(json.dumps(report.as_dict(), indent=2) if as_json else "\n" + "\n".join(lines(report)))
    sys.exit(0 if report.good else BAD)


def _perform(plan: Plan, broker: str | None, store: str | None, folder: Path, view: View) -> Report:
    """Put up the stage, play, and take everything down again, whatever happens."""
    with ExitStack() as stack:
        server = stack.enter_context(running(broker, folder))
        what = f"{server.what}, leases in {store.rpartition('@')[2]}" if store else server.what
        prefix = f"celery-ha-demo-{secrets.token_hex(4)}:"
        view.say(f"Server: {what}. Seed: {plan.seed}")
        ledger = folder / "ledger"
        ledger.mkdir()
        environment = {BROKER: server.url, STORE: store or "", KEY_PREFIX: prefix, LEDGER: str(ledger)}
        os.environ.update(environment)
        from celery_ha.demo.app import app, charge  # noqa: PLC0415 - it reads the environment

        desk = _desk(app)
        stack.callback(desk.close)
        traces = Traces(app, prefix, QUEUE, SHARDS)
        stack.callback(traces.wipe, desk.store)
        fleet = stack.enter_context(Fleet(plan.workers, folder, environment))
        stack.callback(_no_more_interrupts)
        stage = Stage(fleet, Watch(desk, QUEUE, SHARDS), ledger, view, plan.tasks, charge)
        with view.live():
            return play(stage, what, plan)


def _desk(app: Any) -> Desk:
    """Connect to the servers for the first time."""
    try:
        desk = Desk(app)
        desk.store.court.look()
    except (OperationalError, StoreUnavailable) as exc:
        raise NoServer(f"{exc}; start it, or leave --broker and --store out") from exc
    return desk


@contextmanager
def _folder(view: View, *, keep: bool) -> Iterator[Path]:
    """A folder for logs and ledger, gone afterwards unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="celery-ha-demo-"))
    try:
        yield folder
    finally:
        if keep:
            view.say(f"Logs and ledger are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does; both are as they were afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_more_interrupts() -> None:
    """From here on it is being taken down: a second Ctrl-C must not leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _stop(code: int, message: str) -> NoReturn:
    print(f"celery_ha.demo: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
