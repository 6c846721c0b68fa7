"""One page of memory shared by a worker's main process and its pool children: until when which lease is trusted.

The process that runs a body looks here last (rule 1): a child that was paused between the gate and
the body, or whose main process is frozen and renews nothing, finds its trust run out.
``time.monotonic`` reads one clock for all processes of a machine on Linux and macOS.
"""

from __future__ import annotations

import mmap
import struct
from time import monotonic

_DEADLINE = struct.Struct("=d")
_LEASE_SIZE = 64


class TrustPage:
    """Written by the keeper's thread only; read by any process forked after it was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.write("", float("-inf"))

    def write(self, lease: str, trusted_until: float) -> None:
        """Trust ``lease`` until then (local monotonic time).

        The old deadline goes first, so that no reader pairs it with the new lease.
        """
        name = lease.encode()[:_LEASE_SIZE].ljust(_LEASE_SIZE, b"\0")
        if self._memory[8 : 8 + _LEASE_SIZE] != name:
            _DEADLINE.pack_into(self._memory, 0, float("-inf"))
            self._memory[8 : 8 + _LEASE_SIZE] = name
        _DEADLINE.pack_into(self._memory, 0, trusted_until)

    def has_lost(self, lease: str) -> bool:
        """Whether the node goes on under another lease, or under none: what was held under this one is gone."""
        return self._lease() != lease

    def trusts(self, lease: str, now: float | None = None) -> bool:
        """Whether a task of this lease may start now."""
        (deadline,) = _DEADLINE.unpack_from(self._memory, 0)
        return self._lease() == lease and (monotonic() if now is None else now) < deadline

    def _lease(self) -> str:
        return self._memory[8 : 8 + _LEASE_SIZE].rstrip(b"\0").decode()
