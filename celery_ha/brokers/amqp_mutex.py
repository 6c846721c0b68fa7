"""One at a time, of all processes that talk to a RabbitMQ.

An exclusive queue is one connection's: nobody else can declare it, and RabbitMQ deletes it with the connection. So
whoever dies holds nobody up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

from amqp.exceptions import ResourceLocked

from celery_ha.brokers.amqp_peek import Peek
from celery_ha.errors import StoreError, StoreUnavailable

#: Seconds between two tries.
AGAIN = 0.05


@contextmanager
def alone(peek: Peek, name: str, patience: float, busy: str) -> Iterator[None]:
    """Be the only one within a block; not between users of one connection, which is nobody else's.

    Args:
        peek: the server.
        name: of the queue that stands for it.
        patience: seconds to wait for who is within.
        busy: what to say if that was not enough.

    Raises:
        StoreError: somebody else was within all the time.
        StoreUnavailable: the server did not answer.

    **Failure:** a connection that is lost within lets the next one in; what each does must be safe without.
    """
    deadline = monotonic() + patience
    while not _entered(peek, name):
        if monotonic() > deadline:
            raise StoreError(busy)
        sleep(AGAIN)
    try:
        yield
    finally:
        with suppress(StoreUnavailable), peek.channel() as channel:  # the connection is gone, and the queue with it
            channel.queue_delete(name)


def _entered(peek: Peek, name: str) -> bool:
    with peek.channel() as channel:
        try:
            channel.queue_declare(name, durable=False, exclusive=True, arguments={"x-queue-type": "classic"})
        except ResourceLocked:
            return False
        return True
