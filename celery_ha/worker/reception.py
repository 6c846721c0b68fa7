"""What a node hears of its queues, and whether it must connect anew because it hears nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from celery_ha.errors import ConsumerStuck

logger = logging.getLogger(__name__)


class Reception:
    """Written by the loop; found stuck by another thread."""

    def __init__(self) -> None:
        #: When each queue was last heard of, on the monotonic clock.
        self.served: dict[str, float] = {}
        #: How often this process has connected anew because it was stuck.
        self.reconnects = 0
        #: Called with the queues, on the loop, each time.
        self.on_stuck: Callable[[tuple[str, ...]], None] = lambda _queues: None
        self._stuck: tuple[str, ...] = ()

    def serve(self, queues: Iterable[str]) -> None:
        """These queues gave something, or were asked and had nothing to give."""
        self.served.update(dict.fromkeys(queues, monotonic()))

    def begin(self) -> float:
        """A consumer begins to consume: what was heard before is no news of it. Returns when."""
        self.served.clear()
        self._stuck = ()
        return monotonic()

    def stuck(self, queues: tuple[str, ...]) -> None:
        """The consumer is deaf to these queues; from any thread."""
        self._stuck = queues

    def check(self) -> None:
        """Called on every turn of the loop.

        Raises:
            ConsumerStuck: connect anew.

        **Failure:** a reconnect under a living lease costs nothing that is held (rule 2), so a wrong one is harmless.
        """
        queues, self._stuck = self._stuck, ()
        if not queues:
            return
        self.reconnects += 1
        logger.error(
            "Messages wait in %s, there is room for them, and nothing comes: connecting anew (the %d. time)",
            ", ".join(queues),
            self.reconnects,
        )
        self.on_stuck(queues)
        raise ConsumerStuck
