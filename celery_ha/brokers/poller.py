"""kombu's poller for Redis channels, with a wake-up for acks and a look at the lease every turn."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from kombu.transport.redis import MultiChannelPoller
from kombu.utils.eventio import ERR, READ

#: Kombu 5.6 begins a turn without its loop (solo and green pools) in its own way.
TURNS_BEGIN_ALIKE = "on_poll_start" in MultiChannelPoller.get.__code__.co_names


class ClaimingPoller(MultiChannelPoller):
    """Serves claiming channels next to plain ones.

    Other threads wake it: an ack given while it sleeps frees a slot, and the next claim must not
    wait for the poll to time out (plain Celery on gevent needs 0.9 s a task for that reason).
    """

    def __init__(self) -> None:
        super().__init__()
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._closed = False
        self._on_loop = False
        self._known: dict[int, Any] = {}
        self._no_channel = (None, None)
        self._loop_thread: int | None = None
        self.poller.register(self._alarm, READ | ERR)

    def wake(self) -> None:
        """Make the poller take another turn; from any thread. Its own takes one anyway."""
        if threading.get_ident() == self._loop_thread:
            return
        with suppress(OSError):  # full: a wake-up is pending anyway; closed: nobody to wake
            self._bell.send(b"\0")

    def pay(self) -> None:
        """Nothing: whoever settles tells the server."""

    def rest(self) -> None:
        """Nothing, for the same reason."""

    def on_poll_init(self, poller: Any) -> None:
        self._on_loop = True
        super().on_poll_init(poller)

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """One turn without a loop."""
        if not TURNS_BEGIN_ALIKE:
            self.on_poll_start()
        return super().get(callback, timeout)

    def on_poll_start(self) -> None:
        self._loop_thread = threading.get_ident()
        for channel in list(self._channels):
            if channel.intake is not None:
                channel.intake.check()
        super().on_poll_start()
        for channel in list(self._channels):
            if channel.intake is not None:
                channel.pay()

    def on_readable(self, fileno: int) -> None:
        if fileno == self._alarm_fd:
            with suppress(OSError):
                self._alarm.recv(4096)
            return
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == "BRPOP" and channel.intake is not None and channel.asked:
            # The reply to a claim or a bell uses no credit that is not already set aside.
            channel.handlers[kind]()
        else:
            super().on_readable(fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        if fileno == self._alarm_fd:
            self.on_readable(fileno)
            return None
        return super().handle_event(fileno, event)

    def close(self) -> None:
        super().close()
        if not self._closed:
            self._closed = True
            with suppress(KeyError, ValueError, OSError, AttributeError):
                self.poller.unregister(self._alarm)
            self._alarm.close()
            self._bell.close()

    def _pause_brpop(self, channel: Any, fileno: int) -> None:
        """Keep listening to a claiming channel without credit: what it hears then is only a bell."""
        if channel.intake is None:
            super()._pause_brpop(channel, fileno)

    @property
    def fds(self) -> dict[int, Any]:
        """What to poll; on a loop, which asks on every turn, only what it does not poll yet."""
        # kombu leaves a closed poller in the loop's tick list; it must offer nothing then.
        if self._closed:
            return {}
        now = {**super().fds, self._alarm_fd: self._no_channel}
        if not self._on_loop:
            return now
        known, self._known = self._known, now
        return {fd: entry for fd, entry in now.items() if known.get(fd) is not entry}

    @property
    def _alarm_fd(self) -> int:
        return self._alarm.fileno()
