"""Reads what RabbitMQ has sent in few calls.

py-amqp reads each part of a frame from the socket by itself, three calls a frame, nine a message; here one
call takes what is there, and the parts are cut from that. What is left over has been read already, so the
descriptor does not become readable for it: :attr:`BufferedTransport.whole` says that there is something.
"""

from __future__ import annotations

import errno
from struct import unpack_from

import amqp.transport

#: Bytes read at once; more where a part is longer.
CHUNK = 16_384
#: Bytes before a frame's payload: type, channel, size.
HEAD = 7


class BufferedTransport(amqp.transport.TCPTransport):
    """py-amqp's, with a buffer."""

    _read_buffer: bytes

    @property
    def whole(self) -> bool:
        """Whether a whole frame was read from the socket that nobody has looked at."""
        buffer = self._read_buffer
        return len(buffer) > HEAD and len(buffer) >= HEAD + 1 + int(unpack_from(">I", buffer, 3)[0])

    def _read(
        self,
        n: int,
        initial: bool = False,  # noqa: FBT001, FBT002 - py-amqp's signature
        _errnos: tuple[int, ...] = (errno.EAGAIN, errno.EINTR),
    ) -> bytes:
        buffer: bytes = self._read_buffer
        try:
            while len(buffer) < n:
                try:
                    more = self._quick_recv(max(n - len(buffer), CHUNK))
                except OSError as exc:
                    if exc.errno not in _errnos:
                        raise
                    if initial and self.raise_on_initial_eintr:
                        raise TimeoutError from None
                    continue
                if not more:
                    raise OSError("Server unexpectedly closed connection")
                buffer += more
        finally:
            self._read_buffer = buffer
        self._read_buffer = buffer[n:]
        return buffer[:n]
