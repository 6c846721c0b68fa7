"""Whose name is taken, on the memory store and a fake clock."""

from __future__ import annotations

import pytest

from celery_ha.errors import DuplicateNode
from celery_ha.failover.namesake import make_sure_of
from celery_ha.model import Node
from celery_ha.store.memory import MemoryServer, MemoryStore

TTL = 8.0


class Town:
    """A store, and a node named w1 that behaves as told."""

    def __init__(self, *, watchable: bool = True) -> None:
        self.now = 1000.0
        self.server = MemoryServer(lambda: self.now, watchable=watchable)
        self.other = MemoryStore(self.server)
        self.renews = False

    def live(self, name: str, **fields) -> None:
        self.other.leases.open(Node("other", name, ttl=TTL, **fields))
        self.renews = True

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.renews:
            self.other.leases.renew("other")

    def come(self, name: str) -> float:
        """Seconds until it may open."""
        began = self.now
        make_sure_of(name, MemoryStore(self.server).court, clock=lambda: self.now, sleep=self.sleep)
        return self.now - began


def test_a_name_that_nobody_has_is_free_at_once():
    town = Town()
    town.live("w2@host")

    assert town.come("w1@host") == 0


def test_a_name_that_somebody_alive_has_is_refused_with_advice():
    town = Town()
    town.live("w1@host")

    with pytest.raises(DuplicateNode, match=r"'w1@host' \(lease other\).* -n"):
        town.come("w1@host")


def test_the_name_of_a_killed_process_is_free_at_once():
    town = Town()
    town.live("w1@host")
    town.renews = False
    town.other.disconnect()

    assert town.come("w1@host") == 0


def test_the_name_of_a_node_that_drains_is_free_at_once():
    town = Town()
    town.live("w1@host")
    town.other.leases.update("other", weight=0, leaving=True)

    assert town.come("w1@host") == 0


def test_the_name_of_a_node_that_starts_is_taken():
    town = Town()
    town.live("w1@host", weight=0)

    with pytest.raises(DuplicateNode):
        town.come("w1@host")


@pytest.mark.parametrize("watchable", [True, False])
def test_the_name_of_a_frozen_node_is_free_after_its_ttl(watchable):
    town = Town(watchable=watchable)
    town.live("w1@host")
    town.renews = False

    assert TTL < town.come("w1@host") < TTL + 1
