"""What ``ha check`` says of which facts."""

from __future__ import annotations

import pytest
from celery import Celery
from kombu import Queue

from celery_ha import HA
from celery_ha.inspect.findings import (
    of_clock,
    of_durability,
    of_fleet,
    of_queues,
    of_rabbitmq,
    of_server,
    of_settings,
    of_shards,
    of_zookeeper,
)
from celery_ha.model import FencedLease, Leader, Look, Node

GOOD = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "maxmemory": "0", "aof_enabled": "1", "save": ""}


def look(*nodes: Node, leader: str | None = None, **more: object) -> Look:
    return Look(
        0,
        0,
        "s",
        {},
        {node.lease: node for node in nodes},
        more.pop("present", frozenset()),
        leader and Leader(leader, 1),
        **more,
    )


def node(at: int, *queues: str, leaving: bool = False, sharded: bool = True) -> Node:
    consumed, shards = queues or ("orders",), tuple((each, 12) for each in queues or ("orders",) if sharded)
    return Node(f"l{at}", f"w{at}", 0 if leaving else 2, consumed, opened=at, shards=shards, leaving=leaving)


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


def test_a_good_server():
    assert levels(of_server("broker", GOOD)) == ["ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("facts", "level", "says"),
    [
        ({"redis_version": "6.0.16"}, "error", "upgrade"),
        ({"redis_version": "10.0.1"}, "ok", "10.0.1"),
        ({"redis_version": ""}, "warning", "version"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "1"}, "error", "noeviction"),
        ({"maxmemory_policy": "allkeys-lru"}, "warning", "noeviction"),
        ({"maxmemory_policy": ""}, "warning", "noeviction"),
        ({"aof_enabled": "0", "save": "3600 1"}, "warning", "snapshots"),
        ({"aof_enabled": "0"}, "warning", "nothing over a restart"),
        ({"aof_enabled": "0", "save": None}, "warning", "does not tell"),
        ({"cluster_enabled": "1"}, "error", "Cluster"),
    ],
)
def test_a_server_with_one_fault(facts, level, says):
    facts = {name: value for name, value in {**GOOD, **facts}.items() if value is not None}
    assert [finding for finding in of_server("broker", facts) if finding.level == level and says in finding.text]


@pytest.mark.parametrize(
    ("skew", "level", "says"), [(0.4, "ok", "0.400"), (3.0, "warning", "behind"), (-3.0, "warning", "ahead")]
)
def test_clocks(skew, level, says):
    found = of_clock("broker", skew)
    assert (found.level, says in found.text) == (level, True)


def test_settings():
    conf = {"task_acks_late": True, "task_reject_on_worker_lost": True, "worker_prefetch_multiplier": 4}
    assert levels(of_settings(conf)) == ["ok"]
    (found,) = of_settings({**conf, "task_acks_late": False})
    assert found.level == "warning"
    assert "task_acks_late" in found.text


def test_fleets():
    three = [node(at) for at in (1, 2, 3)]
    assert levels(of_fleet(look(*three, leader="l1"))) == ["ok"]
    assert levels(of_fleet(look())) == ["warning"]
    assert levels(of_fleet(look(node(1), leader="l1"))) == ["warning"]
    # Who drains, and who only takes locks, is nobody to count on.
    assert levels(of_fleet(look(*three[:2], node(3, leaving=True), Node("t", "1@host", 0), leader="l1"))) == ["warning"]
    assert levels(of_fleet(look(*three))) == ["ok", "warning"]
    assert levels(of_fleet(look(*three, leader="gone"))) == ["ok", "warning"]
    assert levels(of_fleet(look(*three, leader="l1", present=None))) == ["ok", "warning"]
    assert levels(of_fleet(look(*three, leader="l1", fenced=(FencedLease(node(9), 1, "r", 0),)))) == ["ok", "warning"]


@pytest.mark.parametrize(
    ("here", "ever", "level"),
    [(12, {"orders": 12}, "ok"), (12, {}, "ok"), (12, {"orders": 24}, "ok"), (24, {"orders": 12}, "error")],
)
def test_shards(here, ever, level):
    assert levels(of_shards({"orders": here}, ever, look(node(1)))) == [level]


def test_a_queue_that_nobody_consumes():
    assert levels(of_shards({"orders": 12}, {"orders": 2}, look(node(1, "celery")))) == ["warning"]
    assert levels(of_shards({"orders": 12}, {}, look(node(1, leaving=True)))) == ["warning"]
    assert levels(of_shards({"orders": 12}, {}, look(node(1, sharded=False)))) == ["warning"]


@pytest.mark.parametrize(
    ("facts", "heartbeat", "expected", "says"),
    [
        ({"product": "RabbitMQ", "version": "3.10.8"}, 4, ["ok"], "RabbitMQ 3.10.8"),
        ({"product": "RabbitMQ", "version": "4.1.0"}, 4, ["ok"], "RabbitMQ 4.1.0"),
        ({"product": "RabbitMQ", "version": "3.9.27"}, 4, ["error"], "upgrade to 3.10"),
        ({"product": "LavinMQ", "version": "2.0"}, 4, ["warning"], "is LavinMQ 2.0"),
        ({"product": "RabbitMQ", "version": "3.12.1"}, 0, ["ok", "warning"], "broker_heartbeat is off"),
    ],
)
def test_rabbitmq(facts: dict[str, str], heartbeat: float, expected: list[str], says: str):
    found = list(of_rabbitmq("broker", facts, heartbeat))
    assert levels(found) == expected
    assert says in found[-1].text


def test_queues_that_are_declared_otherwise_are_named_up_to_a_few():
    assert of_queues([]).level == "ok"
    found = of_queues([f"orders.{number}" for number in range(8)])
    assert found.level == "error"
    assert "orders.4 and 3 more" in found.text


ENSEMBLE = {
    "zookeeper_version": "3.9.2",
    "zookeeper_mode": "follower",
    "session_timeout": "2.5",
    "session_asked": "2.5",
}


@pytest.mark.parametrize(
    ("facts", "expected", "says"),
    [
        ({}, ["ok", "ok", "ok"], "an ensemble; this server is its follower"),
        ({"zookeeper_version": "3.4.14"}, ["error", "ok", "ok"], "upgrade to 3.5"),
        ({"zookeeper_version": "10.1"}, ["ok", "ok", "ok"], "ZooKeeper 10.1"),
        ({"zookeeper_mode": "standalone"}, ["ok", "warning", "ok"], "three are an ensemble"),
        ({"session_timeout": "4"}, ["ok", "ok", "warning"], "after 4 s, not the 2.5 s that were asked for"),
        ({"zookeeper_version": None, "zookeeper_mode": None}, ["warning", "ok"], "4lw.commands.whitelist"),
    ],
)
def test_zookeeper(facts, expected, says):
    given = {name: value for name, value in {**ENSEMBLE, **facts}.items() if value is not None}
    found = list(of_zookeeper("store", given))
    assert levels(found) == expected
    assert any(says in finding.text for finding in found)


def test_queues_that_do_not_outlive_a_server():
    quorum = Queue("safe", queue_arguments={"x-queue-type": "quorum"})
    assert list(of_durability([quorum], "persistent")) == []
    found = list(of_durability([quorum, Queue("old"), Queue("brief", durable=False)], 2))
    assert [(finding.level, finding.text.partition(";")[0].rpartition(": ")[2]) for finding in found] == [
        ("error", "brief"),
        ("warning", "old"),
    ]
    assert levels(of_durability([quorum], "transient")) == ["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_acks_late", False),
        ("task_reject_on_worker_lost", False),
        ("worker_cancel_long_running_tasks_on_connection_loss", True),
        ("beat_scheduler", "celery.beat:PersistentScheduler"),
        ("worker_enable_remote_control", False),
        ("broker_connection_retry", False),
    ],
)
def test_settings_that_fight_what_ha_is_for_say_what_to_write(name: str, value: object):
    app = Celery("fights", set_as_current=False)
    HA(app)
    assert levels(of_settings(app.conf)) == ["ok"]
    app.conf[name] = value
    (found,) = of_settings(app.conf)
    assert (found.level, found.text.partition(" is ")[0]) == ("warning", name)
    assert "; write " in found.text


def test_a_heartbeat_that_outlasts_the_lease():
    facts = {"product": "RabbitMQ", "version": "4.1.0"}
    assert levels(of_rabbitmq("broker", facts, 60, 10.0)) == ["ok", "warning"]
    assert levels(of_rabbitmq("broker", facts, 4, 10.0)) == ["ok"]
    assert levels(of_rabbitmq("broker", facts, 60)) == ["ok"], "the management API closes the connection"
