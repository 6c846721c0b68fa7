"""``ha drain``: send a node home."""

from __future__ import annotations

import click

from celery_ha.cli.command import answering, no_such
from celery_ha.cli.show import Answer
from celery_ha.inspect.desk import Desk
from celery_ha.inspect.fleet import workers


@click.command()
@click.argument("node")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds to wait for its answer.",
)
@answering
def drain(desk: Desk, node: str, timeout: float) -> Answer:
    """Shut a worker down warmly: its shards go at once, what runs ends, the rest goes back to its queues."""
    names = {each.name for each in workers(desk.look)}
    if node not in names:
        raise no_such("node", node, names)
    control = desk.app.control
    if not control.ping(destination=[node], timeout=timeout):
        raise click.ClickException(
            f"{node} did not answer within {timeout:g} s, and was told nothing: its remote control is off, its loop is "
            "busy (solo), or it is gone; send it SIGTERM instead"
        )
    control.shutdown(destination=[node])
    return Answer({"node": node, "told": True}, [f"{node} shuts down: watch it in `ha status`"])
