"""What all commands share: the app, ``--json``, and errors as one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import update_wrapper
from typing import Any

import click

from celery_ha.cli.show import Answer, show
from celery_ha.inspect.desk import UNANSWERED, Desk

#: Client libraries that log what they raise.
LOUD = ("kazoo", "amqp")


def answering(function: Callable[..., Answer]) -> Callable[..., None]:
    """Make the body of a command of a function that takes a desk and the command's own options.

    The command exits with 1 after what is wrong, said in one line on standard error.
    """

    def run(*, as_json: bool, **options: Any) -> None:
        ctx = click.get_current_context()
        hush()
        try:
            with closing(Desk(ctx.obj.app)) as desk:
                answer = function(desk, **options)
        except UNANSWERED as exc:
            raise click.ClickException(" ".join(str(exc).split())) from exc
        show(answer, as_json=as_json, color=not ctx.obj.no_color)
        if answer.bad:
            ctx.exit(1)

    # The function's own options and its help.
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(update_wrapper(run, function))


def hush() -> None:
    """What a client library logs beside the error it raises is for whoever set logging up, and for nobody else."""
    for library in LOUD:
        logging.getLogger(library).addHandler(logging.NullHandler())


class ListFirst(click.Group):
    """A group whose command is ``list`` unless another one is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Completion asks for the names of the commands, so it must not be led past them.
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named or ctx.resilient_parsing else ["list", *args])


def sure(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; on standard error, so that JSON stays JSON.

    Raises:
        click.Abort: the answer is no, or there is nobody to ask.
    """
    if not yes:
        click.confirm(question, abort=True, err=True)


def no_such(what: str, wanted: str, there: Iterable[str] = ()) -> click.ClickException:
    """The error for a name that does not exist, with those that do."""
    names = ", ".join(sorted(there))
    return click.ClickException(f"there is no {what} {wanted!r}" + (f"; there are: {names}" if names else ""))
