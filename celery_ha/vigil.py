"""Whether a worker that lives and has room is left without the messages that wait for it. Pure.

A consumer may be deaf although its process, its lease and its connections look well: a reply that a firewall
swallowed, a socket that is polled no more, a subscription or a credit that was lost in a reconnect (celery#8030,
#8091, #9512, #10205). What proves it is that messages wait while there is room for them, and that their queue
serves nobody here, look after look. As with deaths (:mod:`celery_ha.detector`) it is watched, not computed from a
clock: a look that fails or comes late proves nothing, and everything is observed afresh.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: Looks in the time after which a consumer is stuck; Celery's timer may come a second late.
LOOKS = 8


@dataclass(frozen=True)
class Sight:
    """One look. Times are of the monotonic clock."""

    #: Something would start at once: a slot is idle, credit is left, the lease is trusted.
    room: bool
    #: Messages that wait, by queue that is consumed; None: the broker did not say.
    waiting: Mapping[str, int] | None
    #: When each queue was last heard of: it gave something, or was asked for something and had nothing to give.
    served: Mapping[str, float]


@dataclass(frozen=True)
class Vigil:
    """What was seen so far, without a break."""

    #: When the consumer began to consume.
    began: float
    #: The last look.
    at: float | None = None
    #: Since when messages were seen to wait in vain, by queue.
    since: Mapping[str, float] = field(default_factory=dict)


def interval(after: float) -> float:
    """Seconds between two looks, where a consumer is stuck ``after`` so many."""
    return after / LOOKS


def doubtful(
    queues: Collection[str], served: Mapping[str, float], began: float, now: float, after: float
) -> tuple[str, ...]:
    """The queues that the broker should be asked about: the others were heard of lately.

    Args:
        queues: all that are consumed.
        served: see :attr:`Sight.served`.
        began: when the consumer began to consume.
        now: the monotonic clock.
        after: seconds after which a consumer is stuck.
    """
    return tuple(sorted(queue for queue in queues if now - served.get(queue, began) >= after / 2))


def watch(vigil: Vigil, sight: Sight, now: float, after: float) -> Vigil:
    """Add a look.

    Args:
        vigil: what was seen before.
        sight: what is seen now.
        now: when it was looked.
        after: seconds after which a consumer is stuck.

    Returns:
        What is seen by now; nothing if there was no room or no answer, or if the look before is too long ago.
    """
    if not sight.room or sight.waiting is None:
        return Vigil(vigil.began, now)
    late = vigil.at is not None and now - vigil.at > after / 2
    before = {} if late else vigil.since
    since = {
        queue: before[queue] if queue in before and sight.served.get(queue, vigil.began) < before[queue] else now
        for queue, count in sight.waiting.items()
        if count > 0
    }
    return Vigil(vigil.began, now, since)


def stuck(vigil: Vigil, served: Mapping[str, float], now: float, after: float) -> tuple[str, ...]:
    """The queues whose messages wait in vain for so long that the consumer must be deaf to them.

    Args:
        vigil: what was seen, the last look included.
        served: see :attr:`Sight.served`.
        now: when it was looked.
        after: seconds without hearing of a queue; messages must have been seen to wait for half of them.
    """
    return tuple(
        sorted(
            queue
            for queue, since in vigil.since.items()
            if now - since >= after / 2 and now - served.get(queue, vigil.began) >= after
        )
    )
