"""What `ha top` says of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from celery_ha.cli.frame import AROUND, FEWEST, line, news, screen
from celery_ha.cli.show import Table, plain

pytestmark = pytest.mark.unit

FAILOVER = {
    "node": "w2",
    "lease": "l2",
    "reason": "connections gone",
    "term": 1,
    "fenced_at": 900.0,
    "took": 0.02,
    "requeued": 7,
    "restarted": 2,
    "locks": 3,
    "queues": {},
}


def node(number: int, state: str = "live", *, leader: bool = False) -> dict[str, Any]:
    return {
        "name": f"w{number}",
        "lease": f"l{number}",
        "state": state,
        "leader": leader,
        "age": 5.0,
        "weight": 2,
        "queues": ["celery"],
        "shards": 4,
        "in_flight": 1,
    }


def snapshot(nodes: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    nodes = list(nodes)
    leader = next((each for each in nodes if each["leader"]), None)
    return {
        "at": 1000.0,
        "store": "redis://",
        "leader": leader and {"node": leader["name"], "lease": leader["lease"], "term": 3},
        "nodes": nodes,
        "queues": [{"queue": "celery", "shards": None, "waiting": 4}, {"queue": "orders", "shards": 8, "waiting": 9}],
        "in_line": 2,
        "dead_letters": 1,
        "locks": [
            {"name": "account:4", "waiting": 2, "holder": {"state": "held", "node": "w1"}},
            {"name": "account:5", "waiting": 1, "holder": {"state": "in trust", "node": None}},
            {"name": "account:6", "waiting": 1, "holder": None},
        ],
        "failovers": [],
        **more,
    }


def test_the_line_adds_up():
    said = line(snapshot([node(1, leader=True), node(2), node(3, "fenced")]))
    assert said.partition("  ")[2] == (
        "leader: w1 term 3  nodes: 2 live, 1 fenced  shards: 12  in flight: 3  waiting: 13  in line: 2  dead letters: 1"
    )


def test_the_line_of_a_store_that_cannot_tell():
    said = line(snapshot([], locks=None, in_line=None, failovers=None))
    assert "leader: nobody  nodes: none" in said
    assert "waiting: 13  in line: ?" in said


def test_nothing_is_new_when_nothing_happened():
    seen = snapshot([node(1, leader=True), node(2)], failovers=[FAILOVER])
    assert list(news(seen, seen)) == []


def test_a_death_is_told_in_its_order():
    before = snapshot([node(1, leader=True), node(2)])
    between = snapshot([node(1, leader=True), node(2, "fenced")])
    after = snapshot([node(1, leader=True)], failovers=[FAILOVER])
    assert [said.partition("  ")[2] for said in (*news(before, between), *news(between, after))] == [
        "w2: live -> fenced",
        "w2: fenced -> gone",
        "w2: connections gone, recovered in 0.02s, requeued 7 (2 had started), locks 3",
    ]


def test_a_change_of_office_and_a_newcomer_are_told():
    told = news(snapshot([node(1, leader=True)]), snapshot([node(1), node(2, leader=True)]))
    assert [said.partition("  ")[2] for said in told] == ["w2: new -> live", "leader: w1 -> w2"]


def test_a_store_that_cannot_tell_has_no_news_of_failovers():
    seen = snapshot([node(1, leader=True)], failovers=None)
    assert list(news(seen, seen)) == []


@pytest.mark.parametrize("height", [10, 24, 60, 400])
def test_a_screen_full_fits_and_shows_the_trouble(height):
    nodes = [node(1), node(2, leader=True), *(node(at) for at in range(3, 200)), node(200, "fenced")]
    queues = [{"queue": f"q{at:02}", "shards": None, "waiting": at} for at in range(40)]
    parts = screen(snapshot(nodes, queues=queues, failovers=[FAILOVER] * 5), height)
    node_rows, queue_rows = (part.rows for part in parts if isinstance(part, Table))
    # Given tables as rich draws them, with an empty line above and below and a rule under the head
    lines = sum(len(list(plain(part))) + 3 if isinstance(part, Table) else 1 for part in parts)
    assert lines <= max(height, AROUND + 2 * FEWEST + 1)
    assert [row[0] for row in node_rows[:2]] == ["w200", "w2"]
    assert queue_rows[0][0] == "q39"
    said = [part for part in parts if isinstance(part, str)]
    hidden = [f"and {len(nodes) - len(node_rows)} nodes more"] if len(node_rows) < len(nodes) else []
    assert [part for part in said if "nodes more" in part] == hidden
    assert "waited for: account:4 (2, held by w1), account:5 (1, in trust), account:6 (1, free)" in said


def test_a_screen_of_an_empty_fleet():
    parts = screen(snapshot([], queues=[], locks=None, failovers=None), 24)
    assert "waited for: the store cannot say" in parts
    assert "failovers: the store cannot say" in parts
