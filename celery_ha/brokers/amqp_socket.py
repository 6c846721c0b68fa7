"""Reads what RabbitMQ has sent in few calls.

py-amqp reads each part of a frame from the socket by itself, three calls a frame, nine a message, and sets the
socket's timeout before and after; here one call takes what is there, and the frames are cut from that. What is
left over has been read already, so the descriptor does not become readable for it: whoever waits for the
descriptor asks :meth:`BufferedTransport.next_frame` before.
"""

from __future__ import annotations

import errno
import socket
from struct import unpack_from

import amqp.transport
from amqp.exceptions import UnexpectedFrame

#: Bytes read at once; more where a part is longer.
CHUNK = 16_384
#: Bytes of a frame before its payload: type, channel, size. One more follows it, always the same.
HEAD, END = 7, 0xCE

#: A frame as py-amqp has it: type, channel, payload.
Frame = tuple[int, int, bytes]


class BufferedTransport(amqp.transport.TCPTransport):
    """py-amqp's, with a buffer."""

    _read_buffer: bytes

    def next_frame(self) -> Frame | None:
        """A frame that was read from the socket already; None: there is no whole one.

        Raises:
            UnexpectedFrame: what was read is none.
        """
        buffer = self._read_buffer
        if len(buffer) <= HEAD:
            return None
        kind, channel, size = unpack_from(">BHI", buffer)
        end = HEAD + size
        if len(buffer) <= end:
            return None
        if buffer[end] != END:
            raise UnexpectedFrame(f"Received frame_end {buffer[end]:#04x} while expecting {END:#04x}")
        self._read_buffer = buffer[end + 1 :]
        return kind, channel, buffer[HEAD:end]

    def take(self) -> None:
        """Read what the socket has, without waiting for more.

        Raises:
            OSError: the connection is gone.
        """
        try:
            more = self._quick_recv(CHUNK, socket.MSG_DONTWAIT)
            if not more:
                raise OSError("Server unexpectedly closed connection")  # noqa: TRY301 - as where the system says it
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.connected = False
            raise
        self._read_buffer += more

    def _read(
        self,
        n: int,
        initial: bool = False,  # noqa: FBT001, FBT002 - py-amqp's signature
        _errnos: tuple[int, ...] = (errno.EAGAIN, errno.EINTR),
    ) -> bytes:
        buffer = self._read_buffer
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
