"""``ha top``: the fleet, live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from itertools import count as counted
from typing import Any

import click

from celery_ha.cli.command import hush
from celery_ha.cli.frame import Snapshot, line, news, screen
from celery_ha.cli.show import Table, can_draw, cell, rich_table
from celery_ha.inspect import values
from celery_ha.inspect.desk import UNANSWERED, Desk

#: Shows a snapshot, after the one before it.
Shower = Callable[[Snapshot, Snapshot | None], None]

STYLES = {"live": "green", "connecting": "yellow", "draining": "yellow", "cut off": "magenta", "fenced": "red"}


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between two snapshots."
)
@click.option("--count", type=click.IntRange(1), default=None, help="Snapshots to take; otherwise until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print each snapshot as one line of JSON.")
@click.pass_context
def top(ctx: click.Context, interval: float, count: int | None, *, as_json: bool) -> None:
    """Watch the leader, the nodes, the queues, the locks and the last failovers.

    In a terminal a picture that changes, elsewhere a line for each snapshot and one for each thing that happened.
    """
    app, before, said = ctx.obj.app, None, ""
    hush()
    with suppress(KeyboardInterrupt), _shower(as_json=as_json, color=not ctx.obj.no_color) as shown:
        for _ in _turns(interval, count):
            after, said = _take(app)
            if after is not None:
                shown(after, before)
                before = after
            elif before is None:  # There never was anything to watch.
                raise click.ClickException(said)
            else:
                click.echo(f"Error: {said}; asking again", err=True)
    if said:
        ctx.exit(1)


def _take(app: Any) -> tuple[Snapshot | None, str]:
    """A snapshot, or why there is none."""
    try:
        with closing(Desk(app)) as desk:
            return values.snapshot(desk), ""
    except UNANSWERED as exc:
        return None, " ".join(str(exc).split())


def _turns(interval: float, count: int | None) -> Iterator[None]:
    """Yield at once and then after each interval, or after as long as the turn took: a slow server is left in peace."""
    for turn in counted(1):
        began = time.monotonic()
        yield
        if turn == count:
            return
        took = time.monotonic() - began
        time.sleep(max(interval - took, min(took, interval)))


def _shower(*, as_json: bool, color: bool) -> AbstractContextManager[Shower]:
    if as_json:
        return nullcontext(_as_json)
    return _live(color=color) if can_draw() else nullcontext(_as_lines)


def _as_json(after: Snapshot, _before: Snapshot | None) -> None:
    click.echo(json.dumps(after, default=str))


def _as_lines(after: Snapshot, before: Snapshot | None) -> None:
    for text in news(before, after) if before else ():
        click.echo(cell(text))
    click.echo(cell(line(after)))


@contextmanager
def _live(*, color: bool) -> Iterator[Shower]:
    from rich.console import Console, Group  # noqa: PLC0415 - optional
    from rich.live import Live  # noqa: PLC0415 - same

    console = Console(no_color=not color)
    # What is said on standard error meanwhile is written above the picture, which stays when the command ends.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def shown(after: Snapshot, _before: Snapshot | None) -> None:
            live.update(Group(*(_drawn(part) for part in screen(after, console.height))), refresh=True)

        yield shown


def _drawn(part: Table | str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - optional

    if isinstance(part, str):
        return Text(cell(part))
    return rich_table(part, STYLES) if part.rows else Text(part.empty)
