"""The form of what each command prints with ``--json``, as JSON Schema (draft 2020-12).

``/api/ha/<noun>`` in Flower answers in the form of the command of that name. Fields may be added; programs should
ignore those they do not know.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
#: Seconds, or seconds since the epoch.
SECONDS: Schema = {"type": "number", "minimum": 0}


def record(**fields: Schema) -> Schema:
    """An object that has all of these fields."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def many(item: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": item}


def table(value: Schema) -> Schema:
    """An object with names of the user's for keys."""
    return {"type": "object", "additionalProperties": value}


def maybe(known: Schema) -> Schema:
    """What may be unknown, or not there."""
    return {"anyOf": [known, {"type": "null"}]}


STATE: Schema = {"enum": ["live", "connecting", "draining", "cut off", "fenced"]}
NODE = record(
    name=TEXT,
    lease=TEXT,
    state=STATE,
    leader=FLAG,
    age=maybe(SECONDS),
    weight=COUNT,
    queues=many(TEXT),
    shards=COUNT,
    in_flight=COUNT,
)
LETTER = {
    "id": TEXT,
    "task_id": maybe(TEXT),
    "task": maybe(TEXT),
    "queue": TEXT,
    "at": SECONDS,
    "reason": TEXT,
    "deliveries": COUNT,
    "unstarted": COUNT,
    "lease": TEXT,
    "bytes": COUNT,
}
#: Headers of a task message as its publisher wrote them.
WRITTEN = ("argsrepr", "kwargsrepr", "eta", "expires", "retries", "group", "root_id", "parent_id", "origin")
LOCK = record(
    name=TEXT,
    slot=COUNT,
    state={"enum": ["held", "in trust"]},
    node=maybe(TEXT),
    lease=maybe(TEXT),
    task=TEXT,
    token=COUNT,
    since=maybe(SECONDS),
    left=maybe(SECONDS),
)
WAITER = record(task=TEXT, parked=FLAG, node=maybe(TEXT), queue=maybe(TEXT))
FAILOVER = record(
    node=TEXT,
    lease=TEXT,
    reason=TEXT,
    term=COUNT,
    fenced_at=SECONDS,
    took=maybe(SECONDS),
    requeued=COUNT,
    restarted=COUNT,
    locks=COUNT,
    queues=table(COUNT),
)
RING = record(shards=COUNT, nodes=many(record(node=TEXT, shards=many(TEXT))), waiting=table(COUNT))
MOVE = record(queue=TEXT, shard=TEXT, **{"from": TEXT, "to": maybe(TEXT)})

STATUS = {
    "store": TEXT,
    "leader": maybe(record(node=TEXT, lease=TEXT, term=COUNT)),
    "nodes": many(NODE),
    "queues": many(record(queue=TEXT, shards=maybe(COUNT), waiting=COUNT)),
    "in_line": maybe(COUNT),
    "dead_letters": COUNT,
}
#: Seconds after a blow; a server's clock may differ a little from this machine's.
AFTER: Schema = {"type": "number"}
ROUND = record(
    victim=TEXT,
    failover=maybe(
        record(
            node=TEXT,
            lease=TEXT,
            reason=TEXT,
            noticed=SECONDS,
            finished=SECONDS,
            requeued=maybe(COUNT),
            restarted=maybe(COUNT),
            locks=maybe(COUNT),
        )
    ),
    timeline=record(
        noticed=maybe(AFTER),
        requeued=maybe(AFTER),
        first_start=maybe(AFTER),
        first_rerun=maybe(AFTER),
        back=maybe(AFTER),
    ),
    verdict=record(
        published=COUNT,
        finished=COUNT,
        lost=many(TEXT),
        rerun=many(TEXT),
        doubled=many(TEXT),
        overlaps=many(record(lock=TEXT, first=TEXT, second=TEXT)),
    ),
    seconds=SECONDS,
)
CONTENDED = record(name=TEXT, waiting=COUNT, holder=maybe(LOCK))

#: By command, as it is typed.
SCHEMAS: dict[str, Schema] = {
    "status": record(**STATUS),
    # One such line for each interval.
    "top": record(at=SECONDS, **STATUS, locks=maybe(many(CONTENDED)), failovers=maybe(many(FAILOVER))),
    "ring": table(RING),
    "ring --key": record(queue=TEXT, key=TEXT, shard=TEXT, node=maybe(TEXT)),
    "ring --without": record(without=TEXT, moves=many(MOVE)),
    "locks list": record(total=COUNT, locks=many(LOCK), lines=table(record(waiting=COUNT, first=many(WAITER)))),
    "locks release": record(name=TEXT, released=COUNT, by=TEXT),
    "locks releases": many(record(name=TEXT, by=TEXT, freed=COUNT, at=SECONDS)),
    "dead list": record(total=COUNT, letters=many(record(**LETTER))),
    "dead show": record(**LETTER, **{name: {} for name in WRITTEN}),
    "dead retry": record(retried=COUNT),
    "dead drop": record(dropped=COUNT),
    "failovers": many(FAILOVER),
    "beat": record(
        leader=maybe(TEXT),
        beats=many(TEXT),
        entries=many(record(name=TEXT, count=COUNT, last=maybe(SECONDS), next=maybe(SECONDS), sent=FLAG)),
        history=many(record(at=SECONDS, entry=TEXT, number=COUNT, due=SECONDS, by=TEXT)),
    ),
    "drill": record(
        server=TEXT,
        workers=COUNT,
        seed=COUNT,
        frozen=FLAG,
        rounds=many(ROUND),
        seconds=SECONDS,
        published=COUNT,
        finished=COUNT,
        lost=COUNT,
        rerun=COUNT,
        doubled=COUNT,
        overlaps=COUNT,
        takeover=record(median=maybe(SECONDS), worst=maybe(SECONDS)),
        good=FLAG,
    ),
    "drain": record(node=TEXT, told=FLAG),
    "probe": record(node=TEXT, lease=maybe(TEXT), ok=FLAG, live=FLAG, ready=FLAG, findings=many(TEXT)),
    "uninstall": record(given_back=COUNT, merged=COUNT, dead_letters=COUNT),
    "check": many(record(level={"enum": ["ok", "warning", "error"]}, about=TEXT, text=TEXT)),
}
