"""A master killed under working workers; Sentinel puts a replica in its place."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis

from tests.support.fleet import eventually
from tests.support.scene import Scene
from tests.support.sentinels import NAME, SentinelSet, sentinel_set
from tests.support.server import RedisServer


@pytest.fixture
def servers(start_redis: Callable[..., RedisServer]) -> Iterator[SentinelSet]:
    with sentinel_set(start_redis().binary) as made:
        yield made


def test_failover_by_sentinel_kills_no_worker_and_no_token_goes_backwards(
    servers: SentinelSet, make_scene: Callable[..., Scene]
):
    # Given workers at work, with what they hold known to a replica
    options = {"broker_transport_options": {"master_name": NAME}}
    scene = make_scene(servers.master, broker=servers.url, client=servers.client(), PROBE_CONF=json.dumps(options))
    scene.top_up(3)
    leases = {node.lease for node in scene.nodes()}
    keys = scene.publish("work", scene.names("long-", 2), 8.0) + scene.load(20, 0.3)
    keys += scene.publish("charge", scene.names("charge-", 20), "account", 0.2)
    scene.wait_started(keys, 8)
    assert scene.redis.wait(2, 5_000) == 2
    # When the master is killed, and a replica takes its place
    dead = servers.strike_master()
    # Then nothing that the replica knew is lost
    scene.wait_ended(keys)
    # And no worker exited, nobody was fenced, and one of the same leads
    assert len(scene.live) == 3
    assert scene.fenced() == set()
    eventually(lambda: {node.lease for node in scene.nodes()} == leases, why="the same leases")
    eventually(lambda: scene.leader is not None, why="a leader")
    # And work goes on, under locks whose tokens never fell, also when the old master is back
    dead.start()
    eventually(lambda: role(dead) == "slave", within=30, why="the old master follows")
    new = scene.load(20, 0.02) + scene.publish("charge", scene.names("new-", 6), "account", 0.02)
    scene.settled(new)
    assert scene.ledger.overlaps([]) == []
    tokens = [run.token for run in scene.ledger.runs() if run.lock]
    assert tokens == sorted(set(tokens)), "a token went backwards"


def role(server: RedisServer) -> str:
    """What it is now; empty while it changes, and closes all connections."""
    with redis.Redis.from_url(server.url) as client, suppress(redis.RedisError):
        return str(client.info("replication")["role"])
    return ""


def test_frozen_master_that_wakes_when_another_is_in_its_place_loses_nothing_that_was_replicated(
    servers: SentinelSet, make_scene: Callable[..., Scene]
):
    # Given workers at work, with what they hold known to the replicas
    options = {"broker_transport_options": {"master_name": NAME}}
    scene = make_scene(servers.master, broker=servers.url, client=servers.client(), PROBE_CONF=json.dumps(options))
    scene.top_up(3)
    keys = scene.load(30, 0.3)
    scene.wait_started(keys, 6)
    assert scene.redis.wait(2, 5_000) == 2
    # When the master stands still until another is in its place, and then wakes
    old = servers.strike_master(signal.SIGSTOP)
    old.send(signal.SIGCONT)
    # Then nothing of that is lost, no worker exits, and work goes on at the new master
    eventually(lambda: role(old) == "slave", within=30, why="the old master follows")
    scene.wait_ended(keys)
    assert len(scene.live) == 3
    eventually(lambda: {node.name for node in scene.nodes()} == {worker.name for worker in scene.live})
    scene.settled(scene.load(20, 0.02))
