"""Where everything is: the names of znodes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

#: Names of locks that are longer, once quoted, are hashed: they are part of many paths.
LONGEST = 200

#: Znodes that others are made under.
FOLDERS = (
    "leases",
    "conns",
    "fenced",
    "gone",
    "held",
    "locks",
    "due",
    "ended",
    "history",
    "releases",
    "uniques",
    "revoked",
    "beat",
    "fired",
    "attempts",
    "tries",
    "ends",
)
#: Znodes that are there from the beginning, empty.
MARKS = ("version", "clock", "rings")


def lock_key(name: str) -> str:
    """The one path component that stands for the name of a lock, whatever characters it has."""
    quoted = _quoted(name)
    if len(quoted) > LONGEST:
        # "%" begins no quoted text this way, so it can be no other lock's.
        return "%sha256-" + hashlib.sha256(name.encode()).hexdigest()
    return quoted


@dataclass(frozen=True)
class Entry:
    """What an index says about one slot of a lock."""

    #: A claim, or a task.
    owner: str
    slot: int
    #: The lock, as :func:`lock_key` gives it.
    key: str

    def __str__(self) -> str:
        return f"{_quoted(self.owner)}:{self.slot}:{self.key}"

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read an index entry back."""
        owner, slot, key = text.split(":", 2)
        return cls(unquote(owner[1:]), int(slot), key)


@dataclass(frozen=True)
class Paths:
    """Paths under one root."""

    root: str

    def at(self, name: str) -> str:
        """A folder, or another znode right under the root."""
        return f"{self.root}/{name}"

    def lease(self, lease: str) -> str:
        return f"{self.root}/leases/{_quoted(lease)}"

    def connection(self, session: str) -> str:
        return f"{self.root}/conns/{session}"

    def fence(self, lease: str) -> str:
        return f"{self.root}/fenced/{_quoted(lease)}"

    def tombstone(self, lease: str) -> str:
        return f"{self.root}/gone/{_quoted(lease)}"

    def hand(self, lease: str) -> str:
        """Where the slots that a lease holds are listed."""
        return f"{self.root}/held/{_quoted(lease)}"

    def lock(self, key: str) -> str:
        return f"{self.root}/locks/{key}"

    def attempts(self, lease: str) -> str:
        """Where the attempts that run under a lease are listed."""
        return f"{self.root}/attempts/{_quoted(lease)}"

    def attempt(self, lease: str, claim: str) -> str:
        return f"{self.attempts(lease)}/{_quoted(claim)}"

    def end(self, claim: str) -> str:
        return f"{self.root}/ended/{_quoted(claim)}"


def lease_of(component: str) -> str:
    """The lease, or the claim, that a path component stands for."""
    return unquote(component[1:])


def _quoted(text: str) -> str:
    # The first letter keeps "." and "..", which ZooKeeper refuses, and the empty text out of paths.
    return "=" + quote(text, safe="")
