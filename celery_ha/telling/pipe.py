"""From the children of a prefork pool to their main process: one record a write, and nobody ever waits.

A pipe that was made before the pool forked is open in every child, also in one that was forked later. A write of
at most ``PIPE_BUF`` bytes is not mixed with others' and not torn by a SIGKILL (POSIX.1-2017, ``write``), so
children need neither files of their own, as the multiprocess mode of ``prometheus_client`` does, nor locks.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger(__name__)

#: Bytes read at a time: what a pipe holds.
CHUNK = 65_536
#: Seconds for the reader to finish.
PATIENCE = 1.0
#: Nothing that JSON would be.
STOP = b"stop"


class Pipe:
    """Its two ends; made by the main process.

    Args:
        receive: called with each record, from a thread of the main process.
    """

    def __init__(self, receive: Callable[[dict[str, object]], None]) -> None:
        self._receive = receive
        self._from, self._to = os.pipe()
        os.set_blocking(self._to, False)
        self._thread = threading.Thread(target=self._read, name="ha-telling", daemon=True)
        self._thread.start()

    def send(self, record: dict[str, object]) -> bool:
        """Send a record from a child.

        Returns:
            False: the main process is far behind or gone, or the record is too large; it is dropped.

        **Failure:** a child that dies within has sent all of it, or nothing.
        """
        data = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
        if len(data) > select.PIPE_BUF:
            return False
        try:
            return os.write(self._to, data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Read what was sent so far and stop; in the main process."""
        with suppress(OSError):
            os.write(self._to, STOP + b"\n")
            self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            os.close(self._from)
            os.close(self._to)

    def _read(self) -> None:
        rest = b""
        while True:
            data = os.read(self._from, CHUNK)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line == STOP:
                    return
                try:
                    self._receive(json.loads(line))
                except Exception:
                    logger.exception("A record from a pool child cannot be told: %.200r", line)
