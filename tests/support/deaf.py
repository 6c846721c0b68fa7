"""Remote control that makes a worker's consumer deaf, for real; imported by the workers (``imports``)."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command, inspect_command
from kombu.transport import pyamqp


@control_command(args=[("how", str)])
def deafen(state: Any, how: str) -> dict[str, str]:
    """``poll``: the answer to the open question is never read; ``credit``: it seems to be used up; ``cancel``:
    RabbitMQ was told to send nothing more; ``queues``: the channel does not know any more what it consumes."""
    consumer = state.consumer
    channel = consumer.task_consumer.channel
    if how == "poll":
        consumer.hub.poller.unregister(channel.client.connection._sock.fileno())
    elif how == "credit":
        channel.qos._delivered.update({f"lost{number}": None for number in range(100)})
    elif how == "queues":
        channel._active_queues.clear()
    elif how == "cancel":
        for known in channel._consumers._consumers.values():
            pyamqp.Channel.basic_cancel(channel, known.tag)
    return {"ok": how}


@inspect_command()
def reception(state: Any) -> dict[str, int]:
    """How often it looked since it connected, and how often it connected anew."""
    return {"looks": state.consumer.lookout.looks, "reconnects": state.app.ha.node.reception.reconnects}
