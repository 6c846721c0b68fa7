"""``ha locks``: who holds what, who waits for it, and how to take it away."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import Any

import click

from celery_ha.cli.command import ListFirst, answering, no_such, sure
from celery_ha.cli.show import Answer, Table, moment, span
from celery_ha.inspect.desk import Desk
from celery_ha.model import HeldLock, Look, Waiter

#: How many in line are shown for each lock.
FIRST = 10


@click.group(cls=ListFirst)
def locks(**_preload: object) -> None:
    """List held locks; release one by force."""


@locks.command("list")
@answering
def list_(desk: Desk) -> Answer:
    """List the locks that are held, in trust, or waited for."""
    survey = desk.survey
    names, lines = names_of(desk.look), survey.lines()
    slots = [describe(lock, names) for lock in survey.locks()]
    value = {
        "locks": slots,
        "lines": {
            name: {"waiting": n, "first": [wait_of(w, names) for w in survey.line(name, FIRST)]}
            for name, n in lines.items()
        },
    }
    rows = [
        (
            s["name"],
            s["slot"],
            s["state"],
            s["node"],
            s["task"],
            s["token"],
            moment(s["since"]),
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
    return Answer(value, [held, *free])


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
    names = names_of(desk.look)
    holders = ", ".join(
        f"{lock.holder.task or 'no task'} on {node_of(lock, names) or 'nobody'}" for lock in held.values()
    )
    sure(f"Take {name!r} from {holders}?", yes=yes)
    by = whoami()
    freed = desk.survey.release(name, {slot: lock.token for slot, lock in held.items()}, by)
    return Answer({"name": name, "released": freed, "by": by}, [f"{freed} released"])


def whoami() -> str:
    """Who runs this, as far as the machine knows: a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):
        user = "?"
    return f"{user}@{socket.gethostname()}"


def names_of(look: Look) -> dict[str, str]:
    """Names of nodes and other processes, by lease."""
    fenced = {lease.node.lease: lease.node.name for lease in look.fenced}
    return {**fenced, **{node.lease: node.name for node in look.nodes.values()}}


def node_of(lock: HeldLock, names: Mapping[str, str]) -> str | None:
    """Whose it is; None: it is in trust. A process that is not known has the name of its lease."""
    lease = lock.holder.lease
    return names.get(lease, lease) if lease else None


def describe(lock: HeldLock, names: Mapping[str, str]) -> dict[str, Any]:
    """One slot, as it is shown."""
    return {
        "name": lock.name,
        "slot": lock.slot,
        "state": "held" if lock.holder.lease else "in trust",
        "node": node_of(lock, names),
        "lease": lock.holder.lease or None,
        "task": lock.holder.task,
        "token": lock.token,
        # Tokens are the server's time in microseconds, or more only if its clock stepped back (rule 12).
        "since": lock.token / 1e6,
        "left": lock.left,
    }


def wait_of(waiter: Waiter, names: Mapping[str, str]) -> dict[str, Any]:
    """One in line, as it is shown."""
    return {
        "task": waiter.task,
        "parked": bool(waiter.queue),
        "node": names.get(waiter.lease, waiter.lease) or None,
        "queue": waiter.queue or None,
    }
