"""``ha status``: the fleet at one look."""

from __future__ import annotations

from typing import Any

import click

from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table, span
from celery_ha.inspect import values
from celery_ha.inspect.desk import Desk


@click.command()
@answering
def status(desk: Desk) -> Answer:
    """Show the leader, the nodes, the queues, and what waits elsewhere."""
    found = values.status(desk)
    leader, in_line = found["leader"], found["in_line"]
    return Answer(
        found,
        [
            f"leader: {leader['node']}, term {leader['term']}" if leader else "leader: nobody",
            "",
            node_table(found["nodes"]),
            "",
            queue_table(found["queues"]),
            "",
            f"in line for locks: {'the store cannot say' if in_line is None else in_line}",
            f"dead letters: {found['dead_letters']}",
        ],
    )


def node_table(nodes: list[dict[str, Any]]) -> Table:
    """One row a node."""
    rows = [
        (
            n["name"],
            f"{n['state']}, leader" if n["leader"] else n["state"],
            span(n["age"]),
            n["weight"],
            n["shards"],
            n["in_flight"],
            ",".join(n["queues"]),
        )
        for n in nodes
    ]
    return Table(
        ("node", "state", "lease age", "weight", "shards", "in flight", "queues"), rows, "no nodes: start a worker"
    )


def queue_table(queues: list[dict[str, Any]]) -> Table:
    """One row a queue."""
    return Table(("queue", "shards", "waiting"), [(q["queue"], q["shards"], q["waiting"]) for q in queues])
