"""A RabbitMQ looked at from outside: over a connection of its own, by channels that live for one question."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import AMQPError, NotFound, PreconditionFailed

from celery_ha.attempts.base import Attempts
from celery_ha.errors import StoreUnavailable
from celery_ha.keys import shard_name


class Peek:
    """Asks one server.

    Args:
        connection: of kombu's, for nobody else.
        url: the server, for messages.
    """

    def __init__(self, connection: Any, url: str) -> None:
        self.connection = connection
        self._url = url

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel for the length of a block; what was read on it and not acked goes back when it closes.

        Raises:
            StoreUnavailable: the server did not answer, or refused.
        """
        with self._answering():
            channel, there = self.connection.channel(), True
            try:
                yield channel
            except OSError:
                there = False  # nor would it answer a goodbye
                raise
            finally:
                with suppress(AMQPError, OSError):
                    if there:
                        channel.close()

    def ready(self, queue: str) -> int | None:
        """Messages in a queue that nobody has taken; None: there is no such queue."""
        return self.counts([queue])[queue]

    def counts(self, queues: Iterable[str]) -> dict[str, int | None]:
        """The same of several queues."""
        found: dict[str, int | None] = {}
        left = deque(queues)
        while left:
            with self.channel() as channel, suppress(NotFound):
                while left:
                    found[left[0]] = None
                    found[left[0]] = int(channel.queue_declare(left[0], passive=True).message_count)
                    left.popleft()
            if left:  # it is not there, and the channel was closed for having asked
                left.popleft()
        return found

    def fits(self, queue: Any) -> bool:
        """Whether a queue of kombu's is not there, or is there with the same arguments."""
        if self.ready(queue.name) is None:
            return True
        with self.channel() as channel:
            try:
                queue(channel).queue_declare()
            except PreconditionFailed:
                return False
            return True

    def facts(self) -> Mapping[str, str]:
        """What the server says of itself when one connects: ``product``, ``version``, ``cluster_name``, ..."""
        with self._answering():
            properties = self.connection.connection.server_properties
            return {name: str(value) for name, value in properties.items() if isinstance(value, str)}

    def close(self) -> None:
        """Drop the connection."""
        self.connection.release()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (AMQPError, OSError) as exc:
            # A late answer must not be taken for that to the next question.
            self.connection.collect()
            raise StoreUnavailable(f"the broker {self._url} could not be reached: {exc}") from exc


def widest(peek: Peek, queue: str, shards: int) -> int:
    """How many shards a queue has: those that are configured, and as many as are there beyond (rule 16).

    Raises:
        StoreUnavailable: the server did not answer.
    """
    while peek.ready(shard_name(queue, shards)) is not None:
        shards += 1
    return shards


class AmqpCensus:
    """What there is on a RabbitMQ, counted: for people, not for decisions.

    Args:
        peek: the server.
        attempts: what runs, in the store.
        shards: configured shards by sharded queue.
    """

    def __init__(self, peek: Peek, attempts: Attempts, shards: Mapping[str, int]) -> None:
        self._peek = peek
        self._shards = shards
        self._attempts = attempts

    def waiting(self, queues: Collection[str]) -> Mapping[str, int]:
        """Messages in each queue that nobody has taken yet."""
        return {queue: count or 0 for queue, count in self._peek.counts(queues).items()}

    def in_flight(self, leases: Collection[str]) -> Mapping[str, int]:
        """Messages that each lease runs; what a worker holds besides is nobody's business but RabbitMQ's."""
        return {lease: len(self._attempts.under(lease)) for lease in leases}

    def widest(self) -> Mapping[str, int]:
        """Shards by queue, those included that are no longer configured (rule 16)."""
        return {queue: widest(self._peek, queue, count) for queue, count in self._shards.items()}

    def now(self) -> float | None:
        """RabbitMQ does not tell the time."""
        return None

    def facts(self) -> Mapping[str, str]:
        """See :meth:`Peek.facts`."""
        return self._peek.facts()
