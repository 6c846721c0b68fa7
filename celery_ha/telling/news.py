"""What there is to tell: the kinds of decisions, and the fields of each. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

#: Fields that all kinds have, in the order in which they are shown.
ALWAYS: Mapping[str, str] = {
    "node": "Celery name of the worker it is about",
    "lease": "its lease",
    "term": "the term of the leader, as the teller last saw it; 0: it has seen none",
    "reason": "why; empty if there is nothing to say",
}


@dataclass(frozen=True)
class Kind:
    """One kind of decision."""

    #: Type of the event.
    name: str
    #: Level of the log line.
    level: int
    #: One sentence for people; refers to fields.
    text: str
    #: What it has beside :data:`ALWAYS`, each with its meaning.
    fields: Mapping[str, str]
    #: When it is told, and by whom.
    when: str


LEADER = Kind("ha-leader", logging.INFO, "{node} leads in term {term}", {}, "a worker was elected; told by itself")
SUSPECTED = Kind(
    "ha-suspected",
    logging.INFO,
    "{node} is suspected: {reason}",
    {},
    "the leader misses a worker's heartbeats or its connections, and looks more often; nobody dies of it",
)
CLEARED = Kind(
    "ha-cleared",
    logging.INFO,
    "{node} is suspected no more: it is alive",
    {"seconds": "how long it was suspected"},
    "a suspicion was false; told by the leader",
)
VERDICT = Kind(
    "ha-verdict", logging.WARNING, "{node} is judged dead: {reason}", {}, "told by the leader, or by who deposes it"
)
FENCED = Kind(
    "ha-fenced",
    logging.WARNING,
    "Fenced {node}: {reason}",
    {},
    "the store refuses the lease from now on; told by who fenced it",
)
REQUEUED = Kind(
    "ha-requeued",
    logging.WARNING,
    "{count} messages of {node} are back in {queue}",
    {"queue": "the queue, a shard by its own name", "count": "how many messages"},
    "for each queue of a recovery",
)
FAILOVER = Kind(
    "ha-failover",
    logging.WARNING,
    "Recovered {node} in {seconds} s: {requeued} messages back in their queues, {restarted} of them had started, "
    "{locks} locks settled",
    {
        "requeued": "messages that went back to their queues",
        "restarted": "of those, how many had started and run again",
        "locks": "how many locks were freed or kept in trust",
        "queues": "messages by queue",
        "seconds": "from the fence, or from when the teller first saw it, to the end of the recovery",
    },
    "a recovery is finished; told by who finished it",
)
LEASE_OPENED = Kind(
    "ha-lease-opened", logging.INFO, "{node} opened lease {lease}", {}, "a worker takes part from now on"
)
LEASE_LOST = Kind(
    "ha-lease-lost",
    logging.ERROR,
    "{node} was fenced: what it held has moved on",
    {},
    "a worker finds that it was given up; it rejoins under a new lease",
)
WEDGED = Kind(
    "ha-wedged",
    logging.CRITICAL,
    "{node} is wedged: {reason}",
    {},
    "a worker's main loop does not turn, so that its lease is not renewed; or its pool takes no tasks",
)
STUCK = Kind(
    "ha-stuck",
    logging.ERROR,
    "{node} is stuck: {reason}",
    {"queues": "those it hears nothing of, with commas between them; empty: its main loop hangs"},
    "a worker that lives hears nothing of what waits for it, or hangs in a call to the broker; it connects anew",
)
SHARDS = Kind(
    "ha-shards",
    logging.INFO,
    "{node} took over {gained} shards and let go of {lost}",
    {
        "gained": "how many shards it consumes from now on",
        "lost": "how many it leaves to others",
        "owned": "how many it consumes now",
    },
    "membership changed and a worker follows",
)
DRAINING = Kind(
    "ha-draining", logging.INFO, "{node} drains", {}, "a worker was told to stop, and gives its shards away"
)
DRAINED = Kind(
    "ha-drained",
    logging.INFO,
    "{node} said goodbye",
    {"clean": "true: it held nothing any more; false: the leader recovers what it held"},
    "a worker closed its lease",
)
DEAD_LETTER = Kind(
    "ha-dead-letter",
    logging.ERROR,
    "Task {task}[{task_id}] goes to the dead letters: {reason}",
    {
        "claim": "the attempt",
        "task_id": "id of the task; empty if it cannot be read",
        "task": "its name; empty if it cannot be read",
        "cause": "`poison`, `unknown`, `arguments`, `invalid` or `undecodable`",
    },
    "a worker gives a message up",
)
LOCK_LOST = Kind(
    "ha-lock-lost",
    logging.ERROR,
    "The lock {lock!r} (token {token}) of task {task_id} is lost: {reason}",
    {
        "claim": "the attempt that held it",
        "task_id": "id of its task; empty outside of a task",
        "lock": "name of the lock",
        "token": "number of the grant",
        "cause": "`fenced`, `max_hold` or `taken`",
    },
    "a holder's lock is gone before it gave it back; told by the holder's worker",
)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        LEADER,
        SUSPECTED,
        CLEARED,
        VERDICT,
        FENCED,
        REQUEUED,
        FAILOVER,
        LEASE_OPENED,
        LEASE_LOST,
        WEDGED,
        STUCK,
        SHARDS,
        DRAINING,
        DRAINED,
        DEAD_LETTER,
        LOCK_LOST,
    )
}


@dataclass(frozen=True)
class News:
    """One decision."""

    kind: Kind
    #: Values by name: those of :data:`ALWAYS` and the kind's own, and no others.
    fields: Mapping[str, object]

    @classmethod
    def of(cls, kind: Kind, **fields: object) -> News:
        """Make news of a kind; what is always there and not given is empty.

        Raises:
            ValueError: a field of the kind is missing, or there is one that it does not have.
        """
        given = {"node": "", "lease": "", "term": 0, "reason": "", **fields}
        if set(given) != {*ALWAYS, *kind.fields}:
            raise ValueError(f"{kind.name} has {sorted({*ALWAYS, *kind.fields})}, not {sorted(given)}")
        return cls(kind, {name: given[name] for name in (*ALWAYS, *kind.fields)})

    @property
    def level(self) -> int:
        """Level of the log line: low for what Celery has logged as an error before us."""
        return logging.INFO if self.fields.get("cause") in ("arguments", "unknown") else self.kind.level

    def line(self) -> str:
        """One line for a log: a sentence, then everything as ``name=value``."""
        return f"{self.kind.text.format(**self.fields)} [{self.kind.name} {logfmt(self.fields)}]"


def logfmt(fields: Mapping[str, object]) -> str:
    """``name=value`` for each field; a value that is no plain word is quoted, and has no line breaks."""
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        value = ",".join(f"{key}:{each}" for key, each in value.items())
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped) + '"'
