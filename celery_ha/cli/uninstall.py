"""``ha uninstall``: leave everything to plain Celery."""

from __future__ import annotations

import click

from celery_ha.cli.command import answering, sure
from celery_ha.cli.show import Answer
from celery_ha.inspect.desk import Desk
from celery_ha.keys import shard_names


@click.command()
@click.option("--gone", is_flag=True, help="The workers that `ha status` still calls live are gone: you made sure.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answering
def uninstall(desk: Desk, *, gone: bool, yes: bool) -> Answer:
    """Give every held message back to its queue, and what is on shards to the queue they are shards of.

    All workers must have been stopped; plain ones may be started afterwards. Dead letters stay. Dying midway
    leaves each message in one place: run it again.
    """
    running = sorted(each.name for each in desk.standings() if each.queues and each.state not in ("cut off", "fenced"))
    if running and not gone:
        raise click.ClickException(f"stop these workers first: {', '.join(running)}")
    sure("Give back all that dead workers hold, and merge the shards?", yes=yes)
    done = {"given_back": desk.side.give_back(), "merged": merged(desk), "dead_letters": len(desk.dead)}
    return Answer(
        done,
        [
            f"{done['given_back']} held messages are back in their queues",
            f"{done['merged']} moved from shards to their queue",
            f"{done['dead_letters']} dead letters stay: `ha dead retry` or `ha dead drop`",
            *filter(None, [desk.side.advice]),
        ],
    )


def merged(desk: Desk) -> int:
    """Messages on shards; returns how many there were."""
    queues = desk.app.amqp.queues
    shards = ((name, shard) for name, count in desk.shards.items() for shard in shard_names(name, count))
    return sum(desk.side.merge(shard, queues[name]) for name, shard in shards)
