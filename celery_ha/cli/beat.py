"""``ha beat``: the schedule that all beats share, which of them is in office, and what fired."""

from __future__ import annotations

import click

from celery_ha.beat.overview import described, overview_of
from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table, moment
from celery_ha.inspect.desk import Desk


@click.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Firings, the newest first.")
@answering
def beat(desk: Desk, limit: int) -> Answer:
    """Show the beat in office, the entries with their last and next run, and the last firings."""
    found = described(overview_of(desk.store), limit)
    entries = [
        (e["name"], e["count"], _at(e["last"]), _at(e["next"]), None if e["sent"] else "to be sent")
        for e in found["entries"]
    ]
    fired = [(moment(f["at"]), f["entry"], f["number"], moment(f["due"]), f["by"]) for f in found["history"]]
    waiting = [name for name in found["beats"] if name != found["leader"]]
    return Answer(
        found,
        [
            f"in office: {found['leader'] or 'nobody'}",
            f"in line: {', '.join(waiting) or 'nobody'}",
            "",
            Table(("entry", "fired", "last due", "next due", "last firing"), entries, "no entries: no beat ran yet"),
            "",
            Table(("fired at", "entry", "number", "due", "by"), fired, "nothing fired"),
        ],
    )


def _at(time: float | None) -> str | None:
    return None if time is None else moment(time)
