"""The pure parts of the command line."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

import pytest

from celery_ha.cli.ring import locate, moves
from celery_ha.cli.show import Answer, Table, cell, plain, show, span
from celery_ha.envelope import afresh, headers
from celery_ha.inspect.fleet import backlogs, rings, standings, state_of
from celery_ha.inspect.values import owners
from celery_ha.model import FencedLease, Leader, Look, Node
from celery_ha.worker.shards import owned_shards

SHARDS = (("orders", 12),)
NODES = [Node(f"l{at}", f"w{at}", 2, ("orders",), (f"c{at}",), opened=at, shards=SHARDS) for at in (1, 2, 3)]


def look(*nodes: Node, present=frozenset({"c1", "c2", "c3"}), leader="l1", fenced=()) -> Look:
    return Look(0, 0, "s", {}, {node.lease: node for node in nodes}, present, Leader(leader, 1), fenced)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0, "0.00s"),
        (0.684, "0.68s"),
        (42.9, "42s"),
        (192, "3m12s"),
        (18_240, "5h04m"),
        (183_600, "2d03h"),
    ],
)
def test_spans(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), ("", "-"), (0, "0"), ("a\nb\x1b[1m", "a�b�[1m")])
def test_cells_stay_on_their_line(value, text):
    assert cell(value) == text


def test_plain_tables_are_aligned():
    assert list(plain(Table(("a", "long"), [("xx", 1), ("x", "")]))) == ["a   long", "xx  1", "x   -"]


def in_a_terminal(monkeypatch, *rows: str, **how) -> str:
    """What a terminal of 80 columns is shown."""
    inner, outer = os.openpty()
    with os.fdopen(outer, "w") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        answer = Answer(
            {"a": 1}, [Table(("node",), [(row,) for row in rows or ("w1[bold]",)]), "done", Table(("b",), [], "empty")]
        )
        show(answer, color=False, **how)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side was closed
        while part := os.read(inner, 4096):
            shown += part
    os.close(inner)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_shows_drawn_tables(monkeypatch):
    said = in_a_terminal(monkeypatch, as_json=False)
    assert "───" in said
    assert all(text in said for text in ("node", "w1[bold]", "done", "empty"))


def test_no_name_is_cut_because_the_terminal_is_narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = "account:" + "7" * 90
    said = in_a_terminal(monkeypatch, long, as_json=False)
    assert long in said
    assert "…" not in said


def test_a_terminal_without_rich_shows_plain_ones(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert in_a_terminal(monkeypatch, as_json=False) == "node\nw1[bold]\ndone\nempty\n"


def test_json_is_json_in_a_terminal_too(monkeypatch):
    assert json.loads(in_a_terminal(monkeypatch, as_json=True)) == {"a": 1}


def test_states():
    node = NODES[0]
    assert state_of(node, frozenset({"c1"})) == "live"
    assert state_of(node, frozenset({"c2"})) == "cut off"
    assert state_of(node, None) == "live"
    assert state_of(Node("l", "w", 0, ("q",)), frozenset()) == "connecting"
    assert state_of(Node("l", "w", 0, ("q",), leaving=True), frozenset()) == "draining"


def test_rings_are_those_the_workers_work_out():
    found = rings(look(*NODES), {"orders": 12})["orders"]
    for node in NODES:
        assert set(found.shards_of(node.name)) == owned_shards(node.name, {"orders": 12}, NODES)


def test_standings_of_a_restarted_node_and_a_fenced_one():
    # Given w1 twice, the older not yet given up, and w9 that was
    young = Node("l4", "w1", 2, ("orders",), ("c4",), opened=4, shards=SHARDS)
    fenced = FencedLease(Node("l9", "w9", 1, ("orders",)), 1, "reason", 7.0)
    seen = look(*NODES, young, present=frozenset({"c2", "c3", "c4"}), leader="l2", fenced=(fenced,))
    found = standings(seen, rings(seen, {"orders": 12}), {"l9": 5}, 10.0)
    assert [(each.lease, each.state, each.age) for each in found] == [
        ("l1", "cut off", 9.0),
        ("l2", "live", 8.0),
        ("l3", "live", 7.0),
        ("l4", "live", 6.0),
        ("l9", "fenced", 3.0),
    ]
    # Then each shard is counted once
    assert sum(each.shards for each in found) == 12
    assert found[0].shards == 0
    assert [each.leader for each in found] == [False, True, False, False, False]
    assert found[4].in_flight == 5
    assert all(each.age is None for each in standings(seen, {}, {}, None))


def test_a_process_that_only_takes_locks_is_no_node():
    seen = look(NODES[0], Node("t", "17@host", 0, ()))
    assert [each.name for each in standings(seen, {}, {}, None)] == ["w1"]


def test_backlogs_add_up_the_shards():
    waiting = {"celery": 1, "orders": 2, "orders.0": 3, "orders.1": 4}
    celery, orders = backlogs(waiting, ("celery", "orders"), {"orders": 2})
    assert (celery.waiting, celery.shards) == (1, None)
    assert (orders.waiting, orders.shards) == (9, 2)


def test_moves_are_what_changes_when_a_node_goes():
    ring = rings(look(*NODES), {"orders": 12})["orders"]
    moved = moves("orders", ring, "w1")
    assert {move["shard"] for move in moved} >= set(ring.shards_of("w1"))
    assert all(move["to"] != "w1" and move["from"] != move["to"] for move in moved)
    assert sum(len(each["shards"]) for each in owners(ring)) == 12
    last = rings(look(NODES[0]), {"orders": 12})["orders"]
    assert {move["to"] for move in moves("orders", last, "w1")} == {None}


def test_a_key_goes_where_publishers_send_it_though_workers_have_more_shards():
    ring = rings(look(*NODES), {"orders": 24})["orders"]
    found = locate("orders", ring, "order.17", 1)
    assert (found["shard"], found["node"]) == ("orders.0", ring.owner("orders.0"))


def test_a_fresh_payload_differs_in_the_count_alone():
    envelope = {"body": "b", "headers": {"id": "x", "redelivered": True, "ha_deliveries": 3}, "properties": {"a": []}}
    fresh = json.loads(afresh(json.dumps(envelope).encode()))
    del envelope["headers"]["ha_deliveries"]
    assert fresh == envelope
    assert afresh(b"no JSON") == b"no JSON"
    assert headers(b"no JSON") == {}
