"""What a node hears of its queues, and whether it must connect anew because it hears nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from celery_ha.errors import ConsumerStuck

logger = logging.getLogger(__name__)


class Reception:
    """Written by the loop; found stuck by other threads.

    Args:
        after: seconds after which a loop that does not turn is cut off; 0: never.
    """

    def __init__(self, after: float) -> None:
        #: When each queue was last heard of, on the monotonic clock.
        self.served: dict[str, float] = {}
        #: How often this process has connected anew because it was stuck.
        self.reconnects = 0
        #: Called each time with the queues that are not heard; without any, from a thread, when the loop hung.
        self.on_stuck: Callable[[tuple[str, ...]], None] = lambda _queues: None
        #: Shuts down the connections that the loop may hang on.
        self.cut: Callable[[], int] = lambda: 0
        self._after = after
        self._stuck: tuple[str, ...] = ()
        #: The last sign of life of a loop that was cut off.
        self._cut_at = float("-inf")

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

    def silent(self, pulse: float | None) -> None:
        """The loop last turned then; from the thread that renews. None: it is known to wait for an answer.

        **Failure:** whatever the loop is busy with goes on; cut off for nothing it connects anew.
        """
        if not self._after or pulse is None or pulse == self._cut_at or monotonic() - pulse < self._after:
            return
        self._cut_at = pulse
        self.reconnects += 1
        logger.error(
            "The main loop has not turned for %.0f s: cutting its %d connections to the broker, in case it waits for "
            "an answer that does not come (the %d. reconnect)",
            monotonic() - pulse,
            self.cut(),
            self.reconnects,
        )
        self.on_stuck(())

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
            "Messages wait in %s, there is room for them, and nothing comes: connecting anew (the %d. reconnect)",
            ", ".join(queues),
            self.reconnects,
        )
        self.on_stuck(queues)
        raise ConsumerStuck
