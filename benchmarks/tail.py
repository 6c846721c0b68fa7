"""Reads what the probe's tasks write to their ledger, as it grows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line."""

    event: str
    key: str
    #: Wall clock.
    at: float
    node: str


class Tail:
    """Each look gives the entries added since the one before.

    Args:
        path: the ledger; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[Entry]:
        """What was added."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")  # the last line may still be being written
        self._read += len(whole) + len(newline)
        return [_entry(line) for line in whole.decode().splitlines()]


def _entry(line: str) -> Entry:
    event, key, _claim, _pid, at, node, *_ = line.split()
    return Entry(event, key, float(at), node)
