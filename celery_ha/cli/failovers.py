"""``ha failovers``: what was given up, when, why, and how long it took."""

from __future__ import annotations

import click

from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table, moment, span
from celery_ha.inspect import values
from celery_ha.inspect.desk import Desk


@click.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest first.")
@answering
def failovers(desk: Desk, limit: int) -> Answer:
    """List finished recoveries, the newest first; the store keeps the last 200, for a week."""
    found = values.failovers(desk, limit)
    rows = [
        (moment(f["fenced_at"]), f["node"], f["reason"], span(f["took"]), f["requeued"], f["restarted"], f["locks"])
        for f in found
    ]
    columns = ("fenced at", "node", "reason", "recovered in", "requeued", "had started", "locks")
    return Answer(found, [Table(columns, rows, "no failovers")])
