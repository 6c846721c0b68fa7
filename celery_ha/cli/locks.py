"""``ha locks``: who holds what, who waits for it, and how to take it away."""

from __future__ import annotations

import getpass
import socket
from dataclasses import asdict

import click

from celery_ha.cli.command import ListFirst, answering, no_such, sure
from celery_ha.cli.show import Answer, Table, moment, span
from celery_ha.inspect import values
from celery_ha.inspect.desk import Desk


@click.group(cls=ListFirst)
def locks(**_preload: object) -> None:
    """List held locks; release one by force, and see who did."""


@locks.command("list")
@answering
def list_(desk: Desk) -> Answer:
    """List the locks that are held, in trust, or waited for."""
    found = values.locks(desk)
    slots, lines = found["locks"], {name: line["waiting"] for name, line in found["lines"].items()}
    rows = [
        (
            s["name"],
            s["slot"],
            s["state"],
            s["node"],
            s["task"],
            s["token"],
            None if s["since"] is None else moment(s["since"]),
            span(s["left"]),
            lines.get(s["name"], 0),
        )
        for s in slots
    ]
    held = Table(("lock", "slot", "state", "node", "task", "token", "since", "ends in", "in line"), rows, "no locks")
    free = [
        f"{name}: {count} in line, nobody holds it"
        for name, count in lines.items()
        if name not in {s["name"] for s in slots}
    ]
    return Answer(found, [held, *free])


@locks.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answering
def release(desk: Desk, name: str, *, yes: bool) -> Answer:
    """Take a lock from all who hold it and hand it on to the first in line.

    Whoever held it runs on until it looks at its lock: what the lock guards must refuse its token.
    """
    held = {lock.slot: lock for lock in desk.survey.locks() if lock.name == name}
    if not held:
        raise no_such("held lock", name)
    names = values.names_of(desk.look)
    holders = ", ".join(
        f"{lock.holder.task or 'no task'} on {values.node_of(lock, names) or 'nobody'}" for lock in held.values()
    )
    sure(f"Take {name!r} from {holders}?", yes=yes)
    by = whoami()
    freed = desk.survey.release(name, {slot: lock.token for slot, lock in held.items()}, by)
    return Answer({"name": name, "released": freed, "by": by}, [f"{freed} released"])


@locks.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest first.")
@answering
def releases(desk: Desk, limit: int) -> Answer:
    """List who took which lock from its holders; the store keeps the last 200, for a week."""
    found = [asdict(each) for each in desk.survey.releases(limit)]
    rows = [(moment(each["at"]), each["name"], each["freed"], each["by"]) for each in found]
    return Answer(found, [Table(("at", "lock", "slots", "by"), rows, "no lock was taken from its holders")])


def whoami() -> str:
    """Who runs this, as far as the machine knows: a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):
        user = "?"
    return f"{user}@{socket.gethostname()}"
