"""What one sees while it runs: a live table in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

#: Seconds between two plain lines.
LINE_EVERY = 1.0


@dataclass(frozen=True)
class Row:
    """One worker."""

    name: str
    #: ``up``, ``starting``, ``killed``, ``frozen``; with ``leader`` where it leads.
    state: str
    shards: int
    in_flight: int
    done: int


@dataclass(frozen=True)
class Picture:
    """Everything at one moment."""

    rows: Sequence[Row]
    done: int
    total: int
    waiting: int


class View(Protocol):
    """Where it shows itself."""

    def live(self) -> AbstractContextManager[Any]:
        """Show pictures for as long as the block lasts."""

    def show(self, picture: Picture) -> None:
        """Show how it stands now."""

    def say(self, text: str) -> None:
        """Say what happens."""


class LineView:
    """Plain lines."""

    def __init__(self) -> None:
        self._due = 0.0
        self._last = ""

    def live(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def show(self, picture: Picture) -> None:
        """Print a line now and then, if something changed."""
        rows = ", ".join(
            f"{row.name} {row.state} shards={row.shards} in-flight={row.in_flight} done={row.done}"
            for row in picture.rows
        )
        line = f"  {picture.done}/{picture.total} done, {picture.waiting} waiting | {rows}"
        if time.monotonic() >= self._due and line != self._last:
            self._due, self._last = time.monotonic() + LINE_EVERY, line
            print(line, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class TableView:
    """A table and a progress bar that are drawn in place."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live  # noqa: PLC0415 - rich is optional

        self._console = console
        self._live = Live(console=console, refresh_per_second=12)

    def live(self) -> AbstractContextManager[Any]:
        return self._live

    def show(self, picture: Picture) -> None:
        self._live.update(_drawn(picture))

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def make_view() -> View:
    """The view that suits where the output goes: standard error, so that a report can be piped."""
    try:
        from rich.console import Console  # noqa: PLC0415 - rich is optional
    except ImportError:
        return LineView()
    console = Console(stderr=True)
    return TableView(console) if console.is_terminal else LineView()


def _drawn(picture: Picture) -> Any:
    from rich.console import Group  # noqa: PLC0415 - rich is optional
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("worker", "state", title="celery_ha", title_justify="left")
    for heading in ("shards", "in flight", "done"):
        table.add_column(heading, justify="right")
    for row in picture.rows:
        style = "red" if row.state in {"killed", "frozen"} else ""
        table.add_row(row.name, row.state, str(row.shards), str(row.in_flight), str(row.done), style=style)
    bar = ProgressBar(total=picture.total, completed=picture.done, width=50)
    return Group(table, bar, Text(f" {picture.done} of {picture.total} done, {picture.waiting} waiting"))
