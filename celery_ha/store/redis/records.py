"""The JSON records in Redis and the values they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from celery_ha.errors import SchemaError, StoreError
from celery_ha.model import SCHEMA, Failover, FencedLease, Firing, Leader, Node, Recovered, Release, Rings
from celery_ha.rings import pack, unpack


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """A flat list of field, value, as a script returns a hash."""
    return {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)}


def lines(text: bytes) -> dict[str, str]:
    """Field and value by turns, one a line."""
    flat = text.decode().split("\n") if text else []
    return dict(zip(flat[::2], flat[1::2], strict=True))


def dump_node(node: Node) -> str:
    """The record of a node. Its connections change more often and are stored beside it."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "name": node.name,
            "weight": node.weight,
            "queues": list(node.queues),
            "opened": node.opened,
            "ttl": node.ttl,
            "shards": [list(pair) for pair in node.shards],
            "leaving": node.leaving,
        },
        separators=(",", ":"),
    )


def load_node(lease: str, record: bytes) -> Node:
    """Read the record of a node.

    Raises:
        SchemaError: written by a version we do not know.
        StoreError: not a record of ours.
    """
    return _node(lease, _load(record))


def with_connections(node: Node, text: str) -> Node:
    """The node with its connections as stored, separated by spaces."""
    return replace(node, connections=tuple(text.split()))


def load_fenced(lease: str, record: bytes) -> FencedLease:
    """Read the record of a fenced lease; raises like :func:`load_node`."""
    fields = _load(record)
    try:
        node = Node(lease, "?") if fields["node"] is None else _node(lease, _known(fields["node"]))
        return FencedLease(
            node=with_connections(node, str(fields["connections"])),
            term=int(fields["term"]),
            reason=str(fields["reason"]),
            at=float(fields["at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def load_failover(entry: bytes) -> Failover:
    """Read an entry of the history; raises like :func:`load_node`."""
    fields = _load(entry)
    try:
        moved = fields["recovered"]
        recovered = Recovered(
            lease=str(moved["lease"]),
            requeued=int(moved["requeued"]),
            restarted=int(moved["restarted"]),
            locks=int(moved["locks"]),
            queues={str(queue): int(count) for queue, count in moved["queues"].items()},
        )
        done = fields.get("done")
        fenced = load_fenced(recovered.lease, json.dumps(fields["fenced"]).encode())
        return Failover(fenced, recovered, None if done is None else float(done))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(entry) from error


def load_release(note: bytes) -> Release:
    """Read who took a lock from its holders; raises like :func:`load_node`."""
    fields = _load(note)
    try:
        return Release(str(fields["lock"]), str(fields["by"]), int(fields["freed"]), float(fields["at"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(note) from error


def dump_recovered(result: Recovered) -> str:
    """What a recovery moved, for the history."""
    return json.dumps(
        {
            "lease": result.lease,
            "requeued": result.requeued,
            "restarted": result.restarted,
            "locks": result.locks,
            "queues": dict(result.queues),
        },
        separators=(",", ":"),
    )


def dump_firing(firing: Firing) -> str:
    """The record of a firing: equal firings have equal texts, which is how the store compares them."""
    return json.dumps({"schema": SCHEMA, **asdict(firing)}, separators=(",", ":"))


def load_firing(record: bytes) -> Firing:
    """Read the record of a firing; raises like :func:`load_node`."""
    fields = dict(_load(record))
    del fields["schema"]
    try:
        return Firing(**fields)
    except TypeError as error:
        raise _unusable(record) from error


def dump_rings(rings: Rings) -> str:
    """The record of the rings."""
    return json.dumps({"schema": SCHEMA, **pack(rings)}, separators=(",", ":"))


def load_rings(record: bytes) -> Rings:
    """Read the record of the rings, empty if none was written; raises like :func:`load_node`."""
    if not record:
        return {}
    try:
        return unpack(_load(record))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unusable(record) from error


def load_leader(lease: bytes, term: bytes, rounds: bytes) -> Leader | None:
    """The leader, if the office was ever taken."""
    return Leader(lease.decode(), int(term), int(rounds)) if lease else None


def _node(lease: str, fields: Mapping[str, Any]) -> Node:
    try:
        return Node(
            lease=lease,
            name=str(fields["name"]),
            weight=int(fields["weight"]),
            queues=tuple(str(queue) for queue in fields["queues"]),
            opened=float(fields["opened"]),
            ttl=float(fields["ttl"]),
            shards=tuple((str(queue), int(count)) for queue, count in fields.get("shards", ())),
            # Who does not write it has a weight until it drains.
            leaving=bool(fields.get("leaving", not fields["weight"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(fields) from error


def _load(record: bytes) -> Mapping[str, Any]:
    try:
        return _known(json.loads(record))
    except ValueError as error:
        raise _unusable(record) from error


def _known(fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, dict):
        raise _unusable(fields)
    if fields.get("schema") != SCHEMA:
        raise SchemaError(
            f"the store holds a record of schema {fields.get('schema')!r}, this version of celery_ha knows "
            f"{SCHEMA}; upgrade this node"
        )
    return fields


def _unusable(record: object) -> StoreError:
    return StoreError(f"the store holds a record celery_ha cannot read: {record!r:.200}")
