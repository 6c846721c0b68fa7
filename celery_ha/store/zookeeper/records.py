"""The JSON records in ZooKeeper and the values they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from celery_ha.errors import SchemaError, StoreError
from celery_ha.model import SCHEMA, Failover, FencedLease, Firing, Holder, Leader, Node, Recovered, Release, Rings
from celery_ha.rings import pack, unpack

_MILLI = 1000


@dataclass(frozen=True)
class Held:
    """A slot of a lock that is held, or (without a lease) in trust for ``holder.task``."""

    holder: Holder
    #: Seconds of trust its holder asked for.
    inherit: float
    #: It is free then, by the store's clock: ``max_hold`` or a trust is over. None: never.
    until: float | None = None
    #: 0: this write grants it; the transaction's own number is the token.
    token: int = 0
    #: ``max_hold`` of a grant that is not written yet: it counts from the transaction's own date.
    lasting: float | None = None
    #: Id of the call it was granted to.
    ask: str = ""

    @property
    def ends(self) -> bool:
        """It becomes free by itself."""
        return self.until is not None or self.lasting is not None


@dataclass(frozen=True)
class Lock:
    """Who holds the slots of a lock."""

    name: str
    #: Random: tells this znode from the next one of its name, for versions begin again with each.
    mark: str
    #: As last asked for.
    limit: int = 1
    slots: Mapping[int, Held] = field(default_factory=dict)

    def without(self, slot: int) -> Lock:
        return replace(self, slots={number: held for number, held in self.slots.items() if number != slot})

    def with_slot(self, slot: int, held: Held) -> Lock:
        return replace(self, slots={**self.slots, slot: held})


@dataclass(frozen=True)
class Waiter:
    """A caller that asks for a lock, or waits for it."""

    holder: Holder
    inherit: float
    max_hold: float | None = None
    #: Id of the call, the same when it is repeated.
    ask: str = ""


def dump_node(node: Node) -> bytes:
    """The record of a node; when it was opened, its znode says."""
    return _dump({name: value for name, value in asdict(node).items() if name not in {"lease", "opened"}})


def load_node(lease: str, record: bytes, created: int) -> Node:
    """Read the record of a node.

    Args:
        lease: whose it is.
        record: the data.
        created: when the znode was made, in milliseconds of the server's clock.

    Raises:
        SchemaError: written by a version we do not know.
        StoreError: not a record of ours.
    """
    return _node({**_load(record), "lease": lease, "opened": created / _MILLI})


def dump_fenced(node: Node, term: int, reason: str) -> bytes:
    """What a fence keeps of its lease."""
    return _dump({"node": asdict(node), "term": term, "reason": reason})


def load_fenced(record: bytes, created: int) -> FencedLease:
    """Read the record of a fenced lease; arguments and errors as of :func:`load_node`."""
    fields = _load(record)
    try:
        return FencedLease(_node(fields["node"]), int(fields["term"]), str(fields["reason"]), created / _MILLI)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def dump_rings(rings: Rings) -> bytes:
    """The record of the rings."""
    return _dump(pack(rings))


def load_rings(record: bytes) -> Rings:
    """Read the record of the rings, empty if none was written; raises like :func:`load_node`."""
    if not record:
        return {}
    fields = _load(record)
    try:
        return unpack(fields)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unusable(record) from error


def dump_leader(leader: Leader) -> bytes:
    """The record of the office."""
    return _dump(asdict(leader))


def load_leader(record: bytes) -> Leader:
    """Read the record of the office; its lease is empty while it is vacant. Raises like :func:`load_node`."""
    fields = _load(record)
    try:
        return Leader(str(fields["lease"]), int(fields["term"]), int(fields["rounds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def dump_failover(fenced: FencedLease, result: Recovered) -> bytes:
    """A finished recovery, for the history; when it was finished, its znode says."""
    return _dump({"fenced": asdict(fenced), "recovered": asdict(result)})


def load_failover(record: bytes, created: int) -> Failover | None:
    """Read an entry of the history; None: of a version that did not say whom it was about. As :func:`load_node`."""
    fields = _load(record)
    if "fenced" not in fields:
        return None
    try:
        fenced, moved = fields["fenced"], Recovered(**fields["recovered"])
        lease = FencedLease(_node(fenced["node"]), int(fenced["term"]), str(fenced["reason"]), float(fenced["at"]))
        return Failover(lease, moved, created / _MILLI)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def load_release(note: bytes) -> Release:
    """Read who took a lock from its holders; raises like :func:`load_node`."""
    fields = _load(note)
    try:
        return Release(str(fields["lock"]), str(fields["by"]), int(fields["freed"]), float(fields["at"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(note) from error


def dump_lock(lock: Lock) -> bytes:
    """The record of a lock."""
    return _dump(asdict(lock))


def load_lock(record: bytes, written: int, date: int) -> Lock:
    """Read the record of a lock.

    Args:
        record: the data.
        written: number of the transaction that wrote it: the token of the slot that it granted.
        date: of that transaction, in milliseconds of the server's clock.

    Raises:
        SchemaError: written by a version we do not know.
        StoreError: not a record of ours.
    """
    fields = _load(record)
    try:
        slots = {int(slot): _held(held, written, date) for slot, held in fields["slots"].items()}
        return Lock(str(fields["name"]), str(fields["mark"]), int(fields["limit"]), slots)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def dump_waiter(waiter: Waiter) -> bytes:
    """The record of a caller that waits."""
    return _dump(asdict(waiter))


def load_waiter(record: bytes) -> Waiter:
    """Read the record of a caller that waits; raises like :func:`load_node`."""
    fields = _load(record)
    try:
        return Waiter(
            Holder(**fields["holder"]), float(fields["inherit"]), fields["max_hold"], str(fields.get("ask", ""))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(record) from error


def dump_firing(firing: Firing) -> bytes:
    """The record of a firing."""
    return _dump(asdict(firing))


def load_firing(record: bytes) -> Firing:
    """Read the record of a firing; raises like :func:`load_node`."""
    fields = _load(record)
    try:
        return Firing(**{name: value for name, value in fields.items() if name != "schema"})
    except TypeError as error:
        raise _unusable(record) from error


def _held(fields: Mapping[str, Any], written: int, date: int) -> Held:
    holder, until, lasting = Holder(**fields["holder"]), fields["until"], fields["lasting"]
    if lasting is not None:
        # Dates are cut to a millisecond: rather held too long than freed too early.
        until = (date + 1) / _MILLI + float(lasting)
    return Held(
        holder, float(fields["inherit"]), until, int(fields["token"]) or written, ask=str(fields.get("ask", ""))
    )


def _node(fields: Mapping[str, Any]) -> Node:
    try:
        return Node(
            lease=str(fields["lease"]),
            name=str(fields["name"]),
            weight=int(fields["weight"]),
            queues=tuple(str(queue) for queue in fields["queues"]),
            connections=tuple(str(connection) for connection in fields["connections"]),
            opened=float(fields["opened"]),
            ttl=float(fields["ttl"]),
            shards=tuple((str(queue), int(count)) for queue, count in fields.get("shards", ())),
            # Who does not write it has a weight until it drains.
            leaving=bool(fields.get("leaving", not fields["weight"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(fields) from error


def _dump(fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"schema": SCHEMA, **fields}, separators=(",", ":")).encode()


def _load(record: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(record)
    except ValueError as error:
        raise _unusable(record) from error
    if not isinstance(fields, dict):
        raise _unusable(record)
    if fields.get("schema") != SCHEMA:
        raise SchemaError(
            f"the store holds a record of schema {fields.get('schema')!r}, this version of celery_ha knows "
            f"{SCHEMA}; upgrade this node"
        )
    return fields


def _unusable(record: object) -> StoreError:
    return StoreError(f"the store holds a record celery_ha cannot read: {record!r:.200}")
