"""``celery-ha``: the same commands as ``celery -A proj ha``, where the app may be named last."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import click
from celery.app.utils import find_app

from celery_ha.cli import ha


@dataclass
class Context:
    """What the commands ask of Celery's own command line."""

    app: Any
    #: How the app was named.
    where: str
    no_color: bool = False


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
    add_help_option=False,
    options_metavar="[-A APP]",
)
@click.option("-A", "--app", "name", envvar="APP", metavar="APP", help="The Celery app, as after celery -A.")
@click.option("--workdir", type=click.Path(exists=True, file_okay=False), help="Change to this folder first.")
@click.option("--no-color", is_flag=True, envvar="NO_COLOR", help="No colours.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(name: str | None, workdir: str | None, *, no_color: bool, command: tuple[str, ...]) -> None:
    """See, steer and try what makes a Celery app highly available: the commands of celery -A APP ha."""
    asks = not command or "--help" in command
    if name is None and not asks:
        raise click.UsageError("name the app: celery-ha COMMAND --app proj")
    if workdir:
        os.chdir(workdir)
    app = None if name is None or asks else _found(name)
    ha.main(list(command) or ["--help"], "celery-ha", obj=Context(app, name or "", no_color))


def _found(name: str) -> Any:
    try:
        return find_app(name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise click.BadParameter(f"cannot load the app {name!r}: {exc}", param_hint="--app") from exc
