"""What a lock guards: a register that accepts no token smaller than one it accepted before.

It lives in a file, so that it remembers when the server forgets. After the fenced resource of
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tests.history.event import Ledger


class Register:
    """One register for each lock; every touch is written to the ledger while the register is closed to others."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    def touch(self, lock: str, token: int, hold: int) -> None:
        """Write the token, if it is not too old."""
        fd = os.open(self._folder / f"register.{lock}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            accepted = token >= int(os.pread(fd, 32, 0) or 0)
            if accepted:
                os.pwrite(fd, b"%032d" % token, 0)
            self._ledger.note("touch", pid=os.getpid(), lock=lock, hold=hold, token=token, yes=accepted)
        finally:
            os.close(fd)
