"""The dead letters on RabbitMQ: list, retry, drop.

A queue is no table: whoever looks takes letters, the oldest first and one after the other, and gives back what he does
not want. So a list takes a page of them, and one looks at a time: a second one would find nothing meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Any

import amqp

from celery_ha.brokers.amqp_dead import DEAD_HEADER, DEAD_QUEUE, declare_dead_queue
from celery_ha.brokers.amqp_envelope import as_envelope
from celery_ha.brokers.amqp_mutex import alone
from celery_ha.brokers.amqp_peek import Peek
from celery_ha.brokers.dead import DeadLetter
from celery_ha.envelope import DELIVERIES, UNSTARTED, task_id
from celery_ha.errors import StoreError
from celery_ha.model import Claim

#: Headers that were true of the letter, and are not of what is published again.
SPENT = (DEAD_HEADER, DELIVERIES, UNSTARTED, "x-delivery-count")

#: Letters that a list takes at most: the oldest, which are the first to come.
PAGE = 1_000
#: The queue that is one looker's, and the seconds that the next one waits for him.
LOOKER, PATIENCE = "_ha.dead.look", 30.0
BUSY = "somebody else has looked at the dead letters for half a minute (a `celery ha dead` that hangs?): try again"


@dataclass(frozen=True)
class _Held:
    """A letter in our hands."""

    letter: DeadLetter
    message: Any


class AmqpDeadLetters:
    """What was given up, until somebody decides; as :class:`celery_ha.brokers.dead.DeadLetters`.

    Args:
        peek: the server.
        queue_of: a queue of kombu's by name.

    Raises:
        StoreUnavailable: the broker could not be reached; a call may have happened.
        StoreError: somebody else looks, and comes to no end.
    """

    def __init__(self, peek: Peek, queue_of: Callable[[str], Any]) -> None:
        self._peek = peek
        self._queue_of = queue_of

    def __len__(self) -> int:
        return self._peek.ready(DEAD_QUEUE) or 0

    def __iter__(self) -> Iterator[DeadLetter]:
        """The newest first; all of them."""
        with self._browse() as (_, found):
            return iter(sorted((held.letter for held in found), key=_age, reverse=True))

    def newest(self, limit: int) -> list[DeadLetter]:
        """The last ``limit`` of the oldest :data:`PAGE`, the newest first."""
        with self._browse() as (_, found):
            return nlargest(limit, (held.letter for held in islice(found, PAGE)), key=_age)

    def find(self, wanted: str) -> DeadLetter | None:
        """The letter of this id, or the newest one of the task of this id."""
        of_task = None
        with self._browse() as (_, found):
            for held in found:
                if held.letter.claim.id == wanted:
                    return held.letter
                if task_id(held.letter.claim.payload) == wanted:
                    of_task = max(of_task or held.letter, held.letter, key=_age)
        return of_task

    def retry(self, letters: Iterable[DeadLetter]) -> int:
        """Put letters at the end of their queues, with no attempt counted.

        Returns:
            How many moved: who else retried or dropped one meanwhile had it.

        Raises:
            StoreError: a letter's queue is not there any more; those before it moved.

        **Failure:** a letter is deleted when RabbitMQ has confirmed its copy. Dying in between leaves both;
        they have one message id, so of two copies one runs.
        """
        return self._end(letters, self._publish)

    def drop(self, letters: Iterable[DeadLetter]) -> int:
        """Delete letters for good; returns how many were still there."""
        return self._end(letters, lambda _channel, _held: None)

    def _end(self, letters: Iterable[DeadLetter], what: Callable[[Any, _Held], None]) -> int:
        wanted, ended = {letter.claim.id for letter in letters}, 0
        with self._browse() as (channel, found):
            while wanted and (held := next(found, None)) is not None:
                if held.letter.claim.id in wanted:
                    what(channel, held)
                    channel.basic_ack(held.message.delivery_tag)
                    wanted.discard(held.letter.claim.id)
                    ended += 1
        return ended

    def _publish(self, channel: Any, held: _Held) -> None:
        name = held.letter.queue
        queue = self._queue_of(name)
        if queue is None:
            raise StoreError(f"nothing leads to the queue {name!r} any more: declare it, or drop the letter")
        queue(channel).declare()
        properties = dict(held.message.properties)
        headers = properties.pop("application_headers", {})
        properties["application_headers"] = {key: value for key, value in headers.items() if key not in SPENT}
        message = amqp.Message(held.message.body, **properties)
        channel.basic_publish(message, exchange=queue.exchange.name, routing_key=queue.routing_key)

    @contextmanager
    def _browse(self) -> Iterator[tuple[Any, Iterator[_Held]]]:
        """All letters, the oldest first; what is not acked within the block goes back to its place."""
        with alone(self._peek, LOOKER, PATIENCE, BUSY), self._peek.channel() as channel:
            declare_dead_queue(channel)
            yield channel, _taken(channel)


def _age(letter: DeadLetter) -> float:
    """What was given back and what never was are not in their old order."""
    return letter.at


def _taken(channel: Any) -> Iterator[_Held]:
    while (message := channel.basic_get(DEAD_QUEUE)) is not None:
        yield _Held(_read(message), message)


def _read(message: Any) -> DeadLetter:
    """A letter as people know it: by the claim that ended here."""
    properties = message.properties
    try:
        why = json.loads(properties.get("application_headers", {}).get(DEAD_HEADER, "{}"))
    except ValueError:
        why = {}
    queue, own = str(why.get("queue", "")), str(properties.get("message_id", ""))
    claim = Claim(str(why.get("claim") or own), queue, as_envelope(message))
    return DeadLetter(claim, queue, str(why.get("reason", "")), float(why.get("at", 0.0)))
