"""``python -m celery_ha.demo``."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import click
from kombu.exceptions import OperationalError

from celery_ha.demo import app as demo
from celery_ha.demo.fleet import Fleet, WorkerGone
from celery_ha.demo.report import Report, lines
from celery_ha.demo.scene import GaveUp, Plan, play
from celery_ha.demo.server import NoServer, running
from celery_ha.demo.stage import Stage
from celery_ha.demo.view import View, make_view
from celery_ha.demo.watch import Watch
from celery_ha.errors import ConfigError, StoreUnavailable

#: Exit codes, besides 0.
BAD, UNUSABLE, INTERRUPTED = 1, 2, 130
#: What ``--broker`` may be.
SCHEMES = ("redis://", "rediss://", "redis+socket://", "sentinel://")


def _redis_url(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    if url is not None and not url.startswith(SCHEMES):
        raise click.BadParameter(f"write a URL that begins with one of {', '.join(SCHEMES)}")
    return url


@click.command()
@click.option(
    "--broker", metavar="URL", callback=_redis_url, help="Use this Redis or Valkey server instead of a private one."
)
@click.option("--tasks", type=click.IntRange(10, 100_000), default=300, show_default=True, help="How many tasks.")
@click.option("--workers", type=click.IntRange(2, 32), default=3, show_default=True, help="How many workers.")
@click.option("--freeze", is_flag=True, help="SIGSTOP one worker instead of SIGKILL, and SIGCONT it later.")
@click.option("--seed", type=int, help="Repeat the choices of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@click.option("--keep", is_flag=True, help="Keep the workers' logs and the tasks' ledger.")
def main(
    broker: str | None, tasks: int, workers: int, *, freeze: bool, seed: int | None, as_json: bool, keep: bool
) -> None:
    """Three workers, a few hundred locked tasks, one worker struck down: what is lost?

    Exits with 1 if a task was lost, two tasks had one lock at a time, or a task ran twice that had
    not been running on the worker that died.
    """
    view = make_view()
    plan = Plan(tasks, workers, secrets.randbelow(10**6) if seed is None else seed, freeze=freeze)
    try:
        with _signals_as_interrupts(), _folder(view, keep=keep) as folder:
            report = _perform(plan, broker, folder, view)
    except (NoServer, ConfigError) as exc:
        _stop(UNUSABLE, str(exc))
    except (GaveUp, WorkerGone, StoreUnavailable) as exc:
        _stop(BAD, str(exc))
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; every process it started is ended")
    print(json.dumps(report.as_dict(), indent=2) if as_json else "\n" + "\n".join(lines(report)))
    sys.exit(0 if report.good else BAD)


def _perform(plan: Plan, broker: str | None, folder: Path, view: View) -> Report:
    """Put up the stage, play, and take everything down again, whatever happens."""
    with ExitStack() as stack:
        server = stack.enter_context(running(broker, folder))
        prefix = f"celery-ha-demo-{secrets.token_hex(4)}:"
        view.say(f"Server: {server.what}. Seed: {plan.seed}")
        demo.app.conf.update(demo.settings(server.url, prefix))
        watch = _watch()
        stack.callback(_leave_nothing, watch, prefix)
        ledger = folder / "ledger"
        ledger.mkdir()
        environment = {demo.BROKER: server.url, demo.KEY_PREFIX: prefix, demo.LEDGER: str(ledger)}
        fleet = stack.enter_context(Fleet(plan.workers, folder, environment))
        stack.callback(_no_more_interrupts)
        stage = Stage(fleet, watch, ledger, view, plan.tasks)
        with view.live():
            return play(stage, server.what, plan)


def _watch() -> Watch:
    """Connect to the server for the first time."""
    try:
        return Watch(demo.app, demo.QUEUE, demo.SHARDS)
    except OperationalError as exc:
        raise NoServer(f"the broker does not answer ({exc}); start it, or leave --broker out") from exc


def _leave_nothing(watch: Watch, prefix: str) -> None:
    """Delete our keys from a server that goes on after us."""
    for key in watch.client.scan_iter(match=f"{prefix}*", count=1000):
        watch.client.delete(key)


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
