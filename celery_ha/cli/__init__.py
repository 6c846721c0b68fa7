"""``celery -A proj ha ...``: the fleet on the command line; an entry point of ``celery.commands``.

Celery imports this module whenever it starts, whatever it is asked and for whatever app: a command's own imports
wait until it is named.
"""

from __future__ import annotations

from importlib import import_module

import click

#: In the order of the help; each is a module of its name.
COMMANDS = (
    "status",
    "top",
    "ring",
    "locks",
    "dead",
    "failovers",
    "beat",
    "drain",
    "drill",
    "check",
    "probe",
    "uninstall",
)


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


@click.group(cls=Commands)
def ha(**_preload: object) -> None:
    """See and steer what makes this app highly available."""


__all__ = ["ha"]
