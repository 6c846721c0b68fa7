"""What a transaction consists of, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: No condition on the version.
ANY = -1


@dataclass(frozen=True)
class Create:
    """Make a znode that must not be there."""

    path: str
    data: bytes = b""
    #: It goes with our session.
    ephemeral: bool = False
    #: ZooKeeper appends a number that grows.
    numbered: bool = False

    def add_to(self, transaction: Any) -> None:
        transaction.create(self.path, self.data, ephemeral=self.ephemeral, sequence=self.numbered)


@dataclass(frozen=True)
class Write:
    """Replace the data of a znode."""

    path: str
    data: bytes = b""
    version: int = ANY

    def add_to(self, transaction: Any) -> None:
        transaction.set_data(self.path, self.data, self.version)


@dataclass(frozen=True)
class Delete:
    """Delete a znode that must be there and have nothing under it."""

    path: str
    version: int = ANY

    def add_to(self, transaction: Any) -> None:
        transaction.delete(self.path, self.version)


@dataclass(frozen=True)
class Check:
    """A znode must be there."""

    path: str
    version: int = ANY

    def add_to(self, transaction: Any) -> None:
        transaction.check(self.path, self.version)


Op = Create | Write | Delete | Check


def absent(path: str) -> tuple[Op, Op]:
    """A znode must not be there: ZooKeeper has no such check, but it can be made and deleted again."""
    return Create(path), Delete(path)
