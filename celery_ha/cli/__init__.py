"""``celery -A proj ha ...``: the fleet on the command line; an entry point of ``celery.commands``."""

from __future__ import annotations

import click

from celery_ha.cli.beat import beat
from celery_ha.cli.check import check
from celery_ha.cli.dead import dead
from celery_ha.cli.drain import drain
from celery_ha.cli.failovers import failovers
from celery_ha.cli.locks import locks
from celery_ha.cli.probe import probe
from celery_ha.cli.ring import ring
from celery_ha.cli.status import status
from celery_ha.cli.top import top
from celery_ha.cli.uninstall import uninstall


@click.group()
def ha(**_preload: object) -> None:
    """See and steer what makes this app highly available."""


for command in (status, top, ring, locks, dead, failovers, beat, drain, check, probe, uninstall):
    ha.add_command(command)

__all__ = ["ha"]
