"""What a node hears of its queues, and whether it must connect anew because it hears nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from celery_ha.errors import ConsumerStuck


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
        #: Told each time of the queues that are not heard, and why that is said; of none, from a thread, when the
        #: loop hung.
        self.on_stuck: Callable[[tuple[str, ...], str], None] = lambda _queues, _reason: None
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
        self.on_stuck(
            (),
            f"its main loop has not turned for {monotonic() - pulse:.0f} s; cutting its {self.cut()} connections to "
            f"the broker, in case it waits for an answer that does not come (the {self.reconnects}. reconnect)",
        )

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
        self.on_stuck(
            queues,
            f"messages wait in {', '.join(queues)}, there is room for them, and nothing comes; connecting anew (the "
            f"{self.reconnects}. reconnect)",
        )
        raise ConsumerStuck
