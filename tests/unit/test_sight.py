"""Which connections of a list belong to which lease."""

from __future__ import annotations

import pytest

from celery_ha.model import Node
from celery_ha.store.redis.sight import Sight

LISTED = b"id=7 addr=127.0.0.1:1 name=ha:live:a age=1\nid=8 addr=127.0.0.1:2 name=ha:live:b age=1\n"


@pytest.mark.parametrize("leases", [("live", "stale"), ("stale", "live")])
def test_connection_whose_id_another_lease_registered_in_an_earlier_run_is_seen(leases: tuple[str, str]) -> None:
    sight = Sight("", {lease: Node(lease, f"{lease}@host") for lease in leases}, {}, "")

    seen = sight.with_connections(b"live\n7 8\nstale\n5 7").find(LISTED)

    assert seen == {"7", "8"}
