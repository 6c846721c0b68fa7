"""A TCP proxy whose connections can be cut off as by a firewall: they stay open, and nothing arrives any more."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes bytes on to a port of this machine, until told otherwise; a thread of its own.

    Args:
        port: where to.
        at: where it listens; 0: on a free port.
    """

    def __init__(self, port: int, at: int = 0) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", at))
        self.port = int(self._listener.getsockname()[1])
        self._mutex = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._dropped: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def drop(self) -> int:
        """From now on whatever is sent on the connections there are vanishes; new ones work. Returns how many."""
        with self._mutex:
            self._dropped |= set(self._pairs)
            return len(self._dropped) // 2

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        for end in (self._listener, *self._pairs):
            end.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        one, _ = self._listener.accept()
        other = socket.create_connection(self._target)
        with self._mutex:
            self._pairs.update({one: other, other: one})
        for end in (one, other):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(65536)
        except OSError:
            data = b""
        with self._mutex:
            dropped = end in self._dropped
        if not data:
            self._hang_up(end, silently=dropped)
        elif not dropped:
            with suppress(OSError):
                self._pairs[end].sendall(data)

    def _hang_up(self, end: socket.socket, *, silently: bool) -> None:
        """Close both ends; of a dropped connection only this one, for the other must not hear of it."""
        self._selector.unregister(end)
        if silently:
            return
        other = self._pairs[end]
        with suppress(KeyError, ValueError):
            self._selector.unregister(other)
        with self._mutex:
            for gone in (end, other):
                self._pairs.pop(gone, None)
                gone.close()
