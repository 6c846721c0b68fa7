"""``ha ring``: who owns which shard, where a key goes, and what would move."""

from __future__ import annotations

from typing import Any

import click

from celery_ha.cli.command import answering, no_such
from celery_ha.cli.show import Answer, Table
from celery_ha.inspect import values
from celery_ha.inspect.desk import Desk
from celery_ha.keys import shard_name, shard_of
from celery_ha.ring import Ring


@click.command()
@click.argument("queue", required=False)
@click.option("--key", help="Where this key goes, as ha_key gives it: the filled-in text.")
@click.option("--without", metavar="NODE", help="What would move if this node were gone.")
@answering
def ring(desk: Desk, queue: str | None, key: str | None, without: str | None) -> Answer:
    """Show which node consumes which shard, of one sharded queue or of all."""
    rings = desk.rings
    if queue is not None and queue not in rings:
        raise no_such("sharded queue", queue, rings)
    chosen = rings if queue is None else {queue: rings[queue]}
    if key is not None and without is not None:
        raise click.UsageError("--key and --without are two questions: ask one")
    if key is not None:
        if len(chosen) != 1:
            raise click.UsageError("--key needs the name of a sharded queue")
        ((name, one),) = chosen.items()
        # Publishers know today's count only; workers consume what was ever used.
        found = locate(name, one, key, desk.config.queues[name])
        return Answer(found, [f"{found['shard']} on {found['node'] or 'nobody'}"])
    if without is not None:
        names = {member.name for one in rings.values() for member in one.members}
        if without not in names:
            raise no_such("node with shards", without, names)
        moved = [move for name, one in chosen.items() for move in moves(name, one, without)]
        table = Table(("shard", "from", "to"), [(m["shard"], m["from"], m["to"]) for m in moved], "nothing would move")
        return Answer({"without": without, "moves": moved}, [table])
    value = values.rings(desk, queue)
    rows = [
        (name, node["node"], len(node["shards"]), " ".join(node["shards"]))
        for name, one in value.items()
        for node in one["nodes"]
    ]
    return Answer(value, [Table(("queue", "node", "number", "shards"), rows, "no shards, or nobody to consume them")])


def locate(queue: str, one: Ring, key: str, shards: int) -> dict[str, Any]:
    """Where a key goes.

    Args:
        shards: how many shards publishers choose from.
    """
    shard = shard_name(queue, shard_of(key, shards))
    return {"queue": queue, "key": key, "shard": shard, "node": one.owner(shard)}


def moves(queue: str, one: Ring, gone: str) -> list[dict[str, Any]]:
    """What changes its owner when a member is gone; None: nobody is left."""
    after = one.without(gone)
    pairs = ((shard, owner, after.owner(shard)) for shard, owner in one.owners.items())
    return [{"queue": queue, "shard": shard, "from": old, "to": new} for shard, old, new in pairs if old != new]
