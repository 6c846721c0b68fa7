"""What would break a promise, said with what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from celery_ha.appconf import CELERY_DEFAULTS
from celery_ha.inspect.fleet import state_of, workers
from celery_ha.model import Look
from celery_ha.rabbitmq import OLDEST_RABBITMQ

Level = Literal["ok", "warning", "error"]

#: The oldest server whose commands we use.
OLDEST = (6, 2)
#: Seconds by which two clocks may differ before an ETA, an expiry or a log is read wrongly.
SKEW = 1.0
#: The leader and its deputies.
ENOUGH = 3
#: Names told of many.
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    #: What was found, and what to do.
    text: str


def of_server(about: str, facts: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a Redis server keeps what it is given.

    Args:
        about: its part.
        facts: see :meth:`celery_ha.store.base.Survey.facts`.
    """
    yield _version(about, facts.get("redis_version", ""))
    yield _eviction(about, facts.get("maxmemory_policy", ""), facts.get("maxmemory", "0"))
    yield _persistence(about, facts)
    if facts.get("cluster_enabled", "0") == "1":
        yield Finding("error", about, "is a Redis Cluster, which cannot be used: take a single server or Sentinel")


def of_rabbitmq(about: str, facts: Mapping[str, str], heartbeat: float) -> Iterator[Finding]:
    """Whether a RabbitMQ keeps what it is given.

    Args:
        about: its part.
        facts: what it says of itself when one connects.
        heartbeat: seconds between two of them, as workers ask for; 0: none.
    """
    name, text = facts.get("product", "a server"), facts.get("version", "")
    found = re.match(r"(\d+)\.(\d+)", text)
    if name != "RabbitMQ" or found is None:
        yield Finding("warning", about, f"is {name} {text}: only RabbitMQ is known to keep what is needed here")
    elif (int(found[1]), int(found[2])) < OLDEST_RABBITMQ:
        wanted = ".".join(map(str, OLDEST_RABBITMQ))
        yield Finding("error", about, f"is RabbitMQ {text}: upgrade to {wanted} or later")
    else:
        yield Finding("ok", about, f"RabbitMQ {text}")
    if not heartbeat:
        text = "broker_heartbeat is off: a frozen worker keeps its messages; leave it unset"
        yield Finding("warning", "settings", text)


def of_queues(others: Sequence[str]) -> Finding:
    """Whether queues are declared on the broker as this app declares them.

    Args:
        others: those that are not.
    """
    if not others:
        return Finding("ok", "queues", "declared as here, or not yet")
    some = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    text = f"declared otherwise on the broker: {some}; no worker can consume them: rename them, or keep their arguments"
    return Finding("error", "queues", text)


def of_clock(about: str, skew: float) -> Finding:
    """Whether this machine's clock agrees with a server's. Leases and locks do not depend on it.

    Args:
        skew: seconds by which the server is ahead.
    """
    if abs(skew) <= SKEW:
        return Finding("ok", about, f"clocks differ by {abs(skew):.3f} s")
    side = "behind" if skew > 0 else "ahead of"
    return Finding(
        "warning",
        about,
        f"this machine's clock is {abs(skew):.1f} s {side} the server's: ETAs and expiries shift; run NTP",
    )


def of_settings(conf: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether Celery's own settings leave HA what it needs; contradictions of ours never get here."""
    wrong = [name for name, needed in CELERY_DEFAULTS.items() if name in _NEEDED and conf[name] != needed]
    for name in wrong:
        yield Finding(
            "warning", "settings", f"{name} is {conf[name]!r}: {_NEEDED[name]}; write {CELERY_DEFAULTS[name]!r}"
        )
    if not wrong:
        yield Finding("ok", "settings", "fit together")


def of_fleet(look: Look) -> Iterator[Finding]:
    """Whether there is somebody to judge and to recover."""
    live = [node for node in workers(look) if state_of(node, look.present) == "live"]
    if not live:
        yield Finding("warning", "nodes", "no live node: start a worker, or nothing is consumed and nobody is missed")
    elif len(live) < ENOUGH:
        yield Finding("warning", "nodes", f"{len(live)} live: with {ENOUGH}, two deputies watch the leader; start more")
    else:
        yield Finding("ok", "nodes", f"{len(live)} live")
    if live and (look.leader is None or look.leader.lease not in look.nodes):
        yield Finding("warning", "nodes", "nobody leads: an election is due within seconds; ask again")
    if look.present is None:
        text = "connections cannot be watched (CLIENT is not permitted, or a proxy): a death is seen after the TTL"
        yield Finding("warning", "store", text)
    if look.fenced:
        yield Finding(
            "warning", "nodes", f"{len(look.fenced)} fenced and not recovered yet: ask again, or read the leader's log"
        )


def of_shards(queues: Mapping[str, int], widest: Mapping[str, int], look: Look) -> Iterator[Finding]:
    """Whether every shard has somebody to consume it.

    Args:
        queues: shards by sharded queue, as this app publishes to them.
        widest: the largest number that workers ever used.
    """
    consumed = {queue for node in workers(look) if node.weight > 0 for queue in node.queues}
    for queue, count in queues.items():
        ever = widest.get(queue, count)
        if queue not in consumed:
            yield Finding(
                "warning", queue, f"no node consumes its {max(count, ever)} shards: start a worker with -Q {queue}"
            )
        elif count > ever:
            text = (
                f"{count} shards here, {ever} in the workers: what is published beyond that waits; restart the workers"
            )
            yield Finding("error", queue, text)
        elif count < ever:
            yield Finding("ok", queue, f"{count} shards; workers go on with all {ever} there ever were")
        else:
            yield Finding("ok", queue, f"{count} shards")


_NEEDED = {
    "task_acks_late": "what runs when a worker dies is lost",
    "task_reject_on_worker_lost": "what a killed pool child ran is lost",
}


def _version(about: str, text: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        return Finding(
            "warning", about, f"does not tell its version; it must be Redis {OLDEST[0]}.{OLDEST[1]} or later"
        )
    if (int(found[1]), int(found[2])) < OLDEST:
        return Finding("error", about, f"is Redis {text}: upgrade to {OLDEST[0]}.{OLDEST[1]} or later")
    return Finding("ok", about, f"Redis {text}")


def _eviction(about: str, policy: str, limit: str) -> Finding:
    if policy == "noeviction":
        return Finding("ok", about, "maxmemory-policy noeviction")
    if not policy:
        return Finding("warning", about, "does not tell its maxmemory-policy: make sure that it is noeviction")
    if limit == "0":
        text = f"maxmemory-policy {policy}, without effect while maxmemory is 0: set noeviction all the same"
        return Finding("warning", about, text)
    return Finding(
        "error", about, f"maxmemory-policy {policy} may drop queues and locks: CONFIG SET maxmemory-policy noeviction"
    )


def _persistence(about: str, facts: Mapping[str, str]) -> Finding:
    if facts.get("aof_enabled") == "1":
        return Finding("ok", about, "appendonly yes")
    save = facts.get("save")
    if save is None:
        return Finding("warning", about, "appendonly no, and does not tell what it saves: a restart may lose messages")
    if save:
        return Finding(
            "warning", about, "saves snapshots only: a crash loses what came since; CONFIG SET appendonly yes"
        )
    return Finding(
        "warning", about, "keeps nothing over a restart, neither queues nor locks: CONFIG SET appendonly yes"
    )
