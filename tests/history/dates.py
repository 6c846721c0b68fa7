"""When ZooKeeper did what, by its own clock: read from its transaction log (``FileTxnLog``)."""

from __future__ import annotations

import struct
from pathlib import Path

#: What a file begins with, what a record does (checksum, length), and its header: session, its number of
#: the request, number of the transaction (zxid), milliseconds, kind.
_FILE, _RECORD, _HEADER = struct.Struct("!iiq"), struct.Struct("!qi"), struct.Struct("!qiqqi")
#: After each record.
_END = 1


def dates(folder: Path) -> dict[int, float]:
    """Seconds of the server's wall clock by number of the transaction.

    They are up to a millisecond late: the log has them cut to one, and what a grant is compared with is
    written down after it.

    Args:
        folder: the server's ``dataDir``.
    """
    found: dict[int, float] = {}
    for log in folder.glob("version-2/log.*"):
        data, at = log.read_bytes(), _FILE.size
        while at + _RECORD.size + _HEADER.size <= len(data):
            _, length = _RECORD.unpack_from(data, at)
            if length <= 0:
                # The rest was reserved and never written.
                break
            _, _, number, milliseconds, _ = _HEADER.unpack_from(data, at + _RECORD.size)
            found[number] = (milliseconds + 1) / 1000
            at += _RECORD.size + length + _END
    return found
