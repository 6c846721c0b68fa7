"""``celery -A proj ha ...``: the fleet on the command line; an entry point of ``celery.commands``."""

from __future__ import annotations

import click

from celery_ha.cli.dead import dead
from celery_ha.cli.status import status


@click.group()
def ha(**_preload: object) -> None:
    """See and steer what makes this app highly available."""


for command in (status, dead):
    ha.add_command(command)

__all__ = ["ha"]
