"""What ``ha top`` says of a snapshot: a line, what is new since the last one, or a screen full. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from celery_ha.cli.show import Table, moment, span
from celery_ha.cli.status import node_table, queue_table

Snapshot = Mapping[str, Any]

#: Those that are in trouble first.
STATES = ("fenced", "cut off", "draining", "connecting", "live")
#: Lines of a screen that are no rows of nodes or queues and no failovers: the first line, which may need two, the
#: tables' own, two that count the rest, locks, and a heading.
AROUND = 15
#: Rows of nodes, or of queues, on the smallest screen.
FEWEST = 3


def line(snapshot: Snapshot) -> str:
    """A snapshot on one line."""
    leader, states = snapshot["leader"], Counter(node["state"] for node in snapshot["nodes"])
    parts = {
        "leader": f"{leader['node']} term {leader['term']}" if leader else "nobody",
        "nodes": ", ".join(f"{states[state]} {state}" for state in reversed(STATES) if states[state]) or "none",
        "shards": sum(node["shards"] for node in snapshot["nodes"]),
        "in flight": sum(node["in_flight"] for node in snapshot["nodes"]),
        "waiting": sum(queue["waiting"] for queue in snapshot["queues"]),
        "in line": "?" if snapshot["in_line"] is None else snapshot["in_line"],
        "dead letters": snapshot["dead_letters"],
    }
    return "  ".join([moment(snapshot["at"]), *(f"{name}: {value}" for name, value in parts.items())])


def news(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """What became of nodes and of the office between two snapshots, a line each."""
    at = moment(after["at"])
    old, new = ({node["lease"]: node for node in each["nodes"]} for each in (before, after))
    for lease, node in new.items():
        was = old[lease]["state"] if lease in old else "new"
        if was != node["state"]:
            yield f"{at}  {node['name']}: {was} -> {node['state']}"
    for lease in old.keys() - new.keys():
        yield f"{at}  {old[lease]['name']}: {old[lease]['state']} -> gone"
    known = {each["lease"] for each in before["failovers"] or ()}
    for each in reversed(after["failovers"] or ()):
        if each["lease"] not in known:
            yield f"{at}  {each['node']}: {_told(each)}"
    leaders = [each["leader"] and each["leader"]["node"] for each in (before, after)]
    if leaders[0] != leaders[1]:
        yield f"{at}  leader: {leaders[0] or 'nobody'} -> {leaders[1] or 'nobody'}"


def screen(snapshot: Snapshot, height: int) -> list[Table | str]:
    """A snapshot as tables.

    Args:
        height: lines there are. Of many nodes those in trouble are shown first, of many queues the longest.
    """
    failovers = None if snapshot["failovers"] is None else snapshot["failovers"][: max(1, height // 10)]
    room = max(2 * FEWEST, height - AROUND - len(failovers or ()))
    queues = sorted(snapshot["queues"], key=lambda queue: (-queue["waiting"], queue["queue"]))
    shown = queues[: max(FEWEST, room - len(snapshot["nodes"]), room // 3)]
    nodes = sorted(snapshot["nodes"], key=_trouble)[: room - len(shown)]
    return [
        line(snapshot),
        node_table(nodes),
        *_rest("nodes", len(snapshot["nodes"]) - len(nodes)),
        queue_table(shown),
        *_rest("queues", len(queues) - len(shown)),
        _lock_line(snapshot["locks"]),
        *_failover_lines(failovers),
    ]


def _trouble(node: Mapping[str, Any]) -> tuple[int, bool, str]:
    return STATES.index(node["state"]), not node["leader"], node["name"]


def _rest(what: str, count: int) -> list[str]:
    return [f"and {count} {what} more"] if count else []


def _lock_line(locks: list[Mapping[str, Any]] | None) -> str:
    if locks is None:
        return "waited for: the store cannot say"
    return "waited for: " + (", ".join(map(_waited, locks)) or "no lock")


def _waited(lock: Mapping[str, Any]) -> str:
    holder = lock["holder"] or {"state": "free", "node": None}
    by = f" by {holder['node']}" if holder["node"] else ""
    return f"{lock['name']} ({lock['waiting']}, {holder['state']}{by})"


def _failover_lines(failovers: list[Mapping[str, Any]] | None) -> list[str]:
    if failovers is None:
        return ["failovers: the store cannot say"]
    if not failovers:
        return ["failovers: none"]
    return ["failovers:", *(f"  {moment(each['fenced_at'])}  {each['node']}: {_told(each)}" for each in failovers)]


def _told(failover: Mapping[str, Any]) -> str:
    return (
        f"{failover['reason']}, recovered in {span(failover['took']) or '?'}, requeued {failover['requeued']} "
        f"({failover['restarted']} had started), locks {failover['locks']}"
    )
