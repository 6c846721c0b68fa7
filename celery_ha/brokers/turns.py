"""Turns of a worker's loop, for a transport whose loop knows nothing of leases."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol


class Turning(Protocol):
    """A channel that has something to do on every turn."""

    is_open: bool

    def turn(self) -> float | None:
        """Do it; returns seconds until there is more to do, None: whenever the loop turns again."""

    def pay(self, *, dead: bool = True) -> None:
        """Settle what has ended and say so; ``dead``: publish dead letters too, which waits for an answer."""

    def rest(self) -> None:
        """Turns are over: what is settled from now on may never be said."""


class Turns:
    """Gives channels their turn, and wakes the loop when another thread has news for it."""

    def __init__(self) -> None:
        self._channels: list[Turning] = []
        self._sockets: tuple[socket.socket, ...] = ()
        self._loop: Any = None
        self._take_in: Callable[[], bool] = lambda: False
        self._loop_thread: int | None = None
        self._timer: Any = None

    def join(self, channel: Turning) -> None:
        """From here on it has its turns."""
        self._channels = [*(other for other in self._channels if other.is_open), channel]

    def run_on(self, loop: Any, take_in: Callable[[], bool]) -> None:
        """On an event loop: before it sleeps, every time.

        Args:
            loop: kombu's.
            take_in: looks at what has come without the loop's being told; whether there was anything.
        """
        self._take_in = take_in
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._sockets = socket.socketpair()
        for end in self._sockets:
            end.setblocking(False)
        loop.add_reader(self._sockets[0], self._hear)
        loop.on_tick.add(self.take)

    @property
    def on_loop(self) -> bool:
        return self._loop is not None

    def take(self) -> None:
        """Every channel's turn.

        Raises:
            Fenced: the lease of the worker is fenced.
        """
        if self._take_in():
            self.turn_again()
        for channel in self._channels:
            again_in = channel.turn()
            if again_in is not None and self._loop is not None and self._timer is None:
                self._timer = self._loop.call_later(again_in, self._due)

    def turn_again(self) -> None:
        """The loop sleeps after a turn, even if something was put off to the next: not this time."""
        with suppress(OSError, IndexError):  # full: a wake-up is pending anyway; closed: nobody to wake
            self._sockets[1].send(b"\0")

    def pay(self, *, dead: bool = True) -> None:
        """Have every channel say what has ended, with no turn to come."""
        for channel in self._channels:
            channel.pay(dead=dead)

    def rest(self) -> None:
        """The loop will not turn any more; what ends from now on is said by :meth:`pay`, if at all."""
        self.pay()
        for channel in self._channels:
            channel.rest()

    def wake(self) -> None:
        """Make the loop take another turn; from any thread. Its own takes one anyway."""
        if self._loop is None:
            # Green threads: there is no loop, and the next read may be seconds away. But who reads here, in the
            # middle of a task, may take in another one, and wait for a slot that is its own.
            self.pay(dead=False)
        elif threading.get_ident() != self._loop_thread:
            self.turn_again()

    def close(self) -> None:
        """The connection is gone."""
        self._channels = []
        if self._loop is not None:
            self._loop.on_tick.discard(self.take)
            with suppress(KeyError, ValueError, OSError, IndexError):
                self._loop.remove_reader(self._sockets[0])
        sockets, self._sockets = self._sockets, ()
        for end in sockets:
            end.close()

    def _hear(self) -> None:
        with suppress(OSError, IndexError):
            self._sockets[0].recv(4096)

    def _due(self) -> None:
        self._timer = None  # that it fired is enough: the loop turns
