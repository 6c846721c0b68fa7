"""``ha status``: the fleet at one look."""

from __future__ import annotations

from dataclasses import asdict

import click

from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table, span
from celery_ha.inspect.desk import Desk
from celery_ha.inspect.fleet import Backlog, Standing


@click.command()
@answering
def status(desk: Desk) -> Answer:
    """Show the leader, the nodes, the queues, and what waits elsewhere."""
    look, nodes, queues = desk.look, desk.standings(), desk.backlogs()
    head = next((node for node in nodes if node.leader), None)
    in_line = sum(desk.survey.lines().values()) if desk.tells else None
    dead = len(desk.dead)
    leader = (
        None
        if look.leader is None or head is None
        else {"node": head.name, "lease": head.lease, "term": look.leader.term}
    )
    return Answer(
        {
            "store": desk.app.ha.store_url,
            "leader": leader,
            "nodes": [asdict(node) for node in nodes],
            "queues": [asdict(queue) for queue in queues],
            "in_line": in_line,
            "dead_letters": dead,
        },
        [
            f"leader: {leader['node']}, term {leader['term']}" if leader else "leader: nobody",
            "",
            node_table(nodes),
            "",
            queue_table(queues),
            "",
            f"in line for locks: {'the store cannot say' if in_line is None else in_line}",
            f"dead letters: {dead}",
        ],
    )


def node_table(nodes: tuple[Standing, ...]) -> Table:
    """One row a node."""
    rows = [
        (
            n.name,
            f"{n.state}, leader" if n.leader else n.state,
            span(n.age),
            n.weight,
            n.shards,
            n.in_flight,
            ",".join(n.queues),
        )
        for n in nodes
    ]
    return Table(
        ("node", "state", "lease age", "weight", "shards", "in flight", "queues"), rows, "no nodes: start a worker"
    )


def queue_table(queues: tuple[Backlog, ...]) -> Table:
    """One row a queue."""
    return Table(("queue", "shards", "waiting"), [(q.queue, q.shards, q.waiting) for q in queues])
