"""``ha dead``: what was given up, and what to do about it."""

from __future__ import annotations

import click

from celery_ha import envelope
from celery_ha.brokers.dead import DeadLetter
from celery_ha.cli.command import ListFirst, answering, no_such, sure
from celery_ha.cli.show import Answer, Table, moment
from celery_ha.inspect import values
from celery_ha.inspect.desk import Desk

#: Headers of a task message worth showing, in Celery's words.
SHOWN = ("argsrepr", "kwargsrepr", "eta", "expires", "retries", "group", "root_id", "parent_id", "origin")


@click.group(cls=ListFirst)
def dead(**_preload: object) -> None:
    """List dead letters; show, retry or drop them."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many, the newest first.")
@answering
def list_(desk: Desk, limit: int) -> Answer:
    """List dead letters, the newest first."""
    found = values.letters(desk, limit)
    total, letters = found["total"], found["letters"]
    rows = [(each["id"], each["task"], each["queue"], moment(each["at"]), each["reason"]) for each in letters]
    more = [f"{total - len(letters)} more: --limit"] if total > len(letters) else []
    table = Table(("id", "task", "queue", "since", "reason"), rows, "no dead letters")
    return Answer(found, [table, *more])


@dead.command("show")
@click.argument("id_", metavar="ID")
@answering
def show_(desk: Desk, id_: str) -> Answer:
    """Show one dead letter, by its id or by its task's."""
    letter = _found(desk, id_)
    headers = envelope.headers(letter.claim.payload)
    details = {**values.letter(letter), **{name: headers.get(name) for name in SHOWN}}
    rows = [*{**details, "at": moment(letter.at)}.items()]
    return Answer(details, [Table(("field", "value"), rows)])


@dead.command()
@click.argument("id_", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@answering
def retry(desk: Desk, id_: str | None, *, every: bool) -> Answer:
    """Move dead letters to the end of their queues, as if they had never been started."""
    chosen = _chosen(desk, id_, every=every)
    moved = desk.dead.retry(chosen)
    return Answer({"retried": moved}, [f"{moved} back in the queue"])


@dead.command()
@click.argument("id_", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answering
def drop(desk: Desk, id_: str | None, *, every: bool, yes: bool) -> Answer:
    """Delete dead letters for good."""
    chosen = _chosen(desk, id_, every=every)
    sure(f"Delete {len(chosen)} for good?", yes=yes)
    dropped = desk.dead.drop(chosen)
    return Answer({"dropped": dropped}, [f"{dropped} deleted"])


def _chosen(desk: Desk, id_: str | None, *, every: bool) -> list[DeadLetter]:
    if every == (id_ is not None):
        raise click.UsageError("name one dead letter, or --all")
    return [*desk.dead][::-1] if id_ is None else [_found(desk, id_)]


def _found(desk: Desk, id_: str) -> DeadLetter:
    letter = desk.dead.find(id_)
    if letter is None:
        raise no_such("dead letter", id_)
    return letter
