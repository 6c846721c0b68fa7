"""What the suites need: a store server under test, and nodes on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from celery_ha.errors import StoreUnavailable
from celery_ha.model import LeaseState, Node, Renewal, Verdict
from celery_ha.store.base import Store


class Backend(Protocol):
    """A store server under test."""

    def client(self) -> Any: ...

    def wipe(self) -> None: ...

    def kill_connections(self, client: Store) -> None: ...

    def pass_time(self, seconds: float) -> None: ...


class Member:
    """A node of a test: its client, its lease and what it is usually asked to do."""

    def __init__(self, store: Any, lease: str, ttl: float, **fields: Any) -> None:
        self.store = store
        self.lease = lease
        self.node = Node(lease=lease, name=f"{lease}@host", ttl=ttl, **fields)
        self.epoch = ""

    def open(self) -> str:
        self.epoch = self.store.leases.open(self.node)
        return self.epoch

    def renew(self) -> Renewal:
        """Renew; a lost connection is found out by the first attempt."""
        try:
            return self.store.leases.renew(self.lease)
        except StoreUnavailable:
            return self.store.leases.renew(self.lease)

    @property
    def state(self) -> LeaseState:
        return self.renew().state

    def judge(self, other: Member, reason: str = "renewals stood still") -> Verdict:
        look = self.store.court.look()
        return Verdict(other.lease, reason, look.counters[other.lease], look.nodes[other.lease].connections)

    def fence(self, other: Member) -> bool:
        term = self.store.court.elect(self.lease)
        return self.store.court.fence(term, self.lease, self.judge(other))


@pytest.fixture
def member(backend: Backend) -> Callable[..., Member]:
    """Open a node under a lease of this name."""

    def make(lease: str, *, open_it: bool = True, ttl: float = 10.0, **fields: Any) -> Member:
        made = Member(backend.client(), lease, ttl, **fields)
        if open_it:
            made.open()
        return made

    return make
