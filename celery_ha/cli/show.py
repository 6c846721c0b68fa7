"""How answers are shown: tables, plain lines, or JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import click

#: Columns, of a table that nobody limits.
WIDEST = 100_000


@dataclass(frozen=True)
class Table:
    """Rows under columns, cells as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    #: Said instead of a table without rows.
    empty: str = "nothing"


@dataclass(frozen=True)
class Answer:
    """What a command found."""

    #: As JSON.
    value: object
    #: For people.
    parts: Sequence[Table | str]
    #: The exit code is 1.
    bad: bool = False


def show(answer: Answer, *, as_json: bool, color: bool) -> None:
    """Write an answer to standard output; tables are drawn only in a terminal that is wide enough, by rich."""
    if as_json:
        click.echo(json.dumps(answer.value, indent=2, default=str))
        return
    drawn = can_draw()
    for part in answer.parts:
        if isinstance(part, str):
            click.echo(part)
        elif not part.rows:
            click.echo(part.empty)
        elif drawn:
            _draw(part, color=color)
        else:
            click.echo("\n".join(plain(part)))


def can_draw() -> bool:
    """Whether there is a terminal, and rich to draw with."""
    return sys.stdout.isatty() and find_spec("rich") is not None


def plain(table: Table) -> Iterable[str]:
    """A table as aligned lines, two spaces between its columns."""
    rows = [[cell(value) for value in row] for row in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def cell(value: object) -> str:
    """A value on one line; what is not known is a dash."""
    if value is None or value == "":
        return "-"
    return "".join(char if char.isprintable() else "�" for char in str(value))


def span(seconds: float | None) -> str | None:
    """A duration: ``0.68s``, ``42s``, ``3m12s``, ``5h04m``, ``2d03h``."""
    if seconds is None:
        return None
    if seconds < 10:
        return f"{seconds:.2f}s"
    whole = int(seconds)
    for size, unit, small, below in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{below}"
    return f"{whole}s"


def moment(at: float) -> str:
    """A time of the server's clock, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def rich_table(table: Table, styles: Mapping[str, str] | None = None) -> Any:
    """A table for rich to print.

    Args:
        table: with a row at least.
        styles: by a cell's text up to its first comma.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - optional
    from rich.table import Table as RichTable  # noqa: PLC0415 - same
    from rich.text import Text  # noqa: PLC0415 - same

    drawn = RichTable(*table.columns, box=SIMPLE_HEAD)
    for row in table.rows:
        texts = map(cell, row)
        drawn.add_row(*(Text(text, (styles or {}).get(text.partition(",")[0], "")) for text in texts))
    return drawn


def _draw(table: Table, *, color: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - optional

    console, drawn = Console(no_color=not color), rich_table(table)
    if console.measure(drawn, options=console.options.update(max_width=WIDEST)).maximum <= console.width:
        console.print(drawn)
    else:  # rich would cut names and ids, which somebody wants to copy
        click.echo("\n".join(plain(table)))
