"""A client of one ZooKeeper server that has no threads, so that a process that forks may use it; it only reads."""

from __future__ import annotations

import socket
import struct
from typing import Any

from kazoo.protocol.serialization import Connect, GetChildren, GetData

#: Seconds for one answer.
TIMEOUT = 0.25
_NO_NODE = -101
_PASSWORD = 16
#: What ZooKeeper mixes into the number of a session to make its password (``SessionTrackerImpl``), and
#: what ``java.util.Random`` goes by.
_SECRET, _FACTOR, _ADDEND, _MASK = 0xB3415C00, 0x5DEECE66D, 0xB, (1 << 48) - 1


class Away(Exception):
    """The store did not answer."""


class Peek:
    """Reads znodes; connects on first use and after every failure.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def children(self, path: str) -> list[str]:
        """Names of what is under a znode; empty if it is not there.

        Raises:
            Away: no answer in time.
        """
        found: list[str] = self._ask(GetChildren(path, None)) or []
        return found

    def data(self, path: str) -> bytes | None:
        """What a znode holds; None if it is not there. Raises like :meth:`children`."""
        found = self._ask(GetData(path, None))
        return None if found is None else bytes(found[0])

    def take_over(self, session: int, timeout: float) -> None:
        """Go on with somebody's session for a moment: the server closes the connection it had until now.

        Args:
            session: its number.
            timeout: of the session; seconds.

        Raises:
            Away: no answer in time.
        """
        try:
            self._connect(session, timeout).close()
        except OSError as error:
            raise Away from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: Any) -> Any:
        try:
            if self._socket is None:
                self._socket = self._connect()
            _send(self._socket, struct.pack("!ii", 1, request.type) + request.serialize())
            answer = _receive(self._socket)
            (error,) = struct.unpack_from("!i", answer, 12)
        except OSError as error:
            self.close()
            raise Away from error
        if error == _NO_NODE:
            return None
        if error:
            self.close()
            raise Away(error)
        return request.deserialize(answer, 16)

    def _connect(self, session: int = 0, timeout: float = 10.0) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT)
        try:
            _send(made, Connect(0, 0, round(timeout * 1000), session, password(session), False).serialize())
            _receive(made)
        except OSError:
            made.close()
            raise
        return made


def password(session: int) -> bytes:
    """What the server asks of whoever goes on with a session; nothing for a new one."""
    if not session:
        return bytes(_PASSWORD)
    state, made = (session ^ _SECRET ^ _FACTOR) & _MASK, b""
    while len(made) < _PASSWORD:
        state = (state * _FACTOR + _ADDEND) & _MASK
        made += struct.pack("<I", state >> 16)
    return made


def _send(to: socket.socket, message: bytes | bytearray) -> None:
    to.sendall(struct.pack("!i", len(message)) + message)


def _receive(source: socket.socket) -> bytes:
    (length,) = struct.unpack("!i", _exactly(source, 4))
    return _exactly(source, length)


def _exactly(source: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        piece = source.recv(length - len(got))
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        got += piece
    return got
