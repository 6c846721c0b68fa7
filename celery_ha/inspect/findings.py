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
#: Older servers have had no fixes for years; 3.8 is tested, 3.9 is written for.
OLDEST_ZOOKEEPER = (3, 5)
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


def of_rabbitmq(about: str, facts: Mapping[str, str], heartbeat: float, ttl: float = float("inf")) -> Iterator[Finding]:
    """Whether a RabbitMQ keeps what it is given, and gives up in time who is frozen.

    Args:
        about: its part.
        facts: what it says of itself when one connects.
        heartbeat: seconds between two of them, as workers ask for; 0: none.
        ttl: seconds in which a frozen worker is to be given up; infinite: somebody else closes its connection.
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
    elif 2 * heartbeat > ttl:
        text = (
            f"broker_heartbeat is {heartbeat:g}: RabbitMQ gives a frozen worker up after two to three of them, its "
            f"lease ends after {ttl:g} s; leave it unset, or set ha_rabbitmq_management"
        )
        yield Finding("warning", "settings", text)


def of_zookeeper(about: str, facts: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a ZooKeeper keeps what it is given, and notices in time who is gone.

    Args:
        about: its part.
        facts: see :meth:`celery_ha.store.survey.Survey.facts`.
    """
    version, mode = facts.get("zookeeper_version", ""), facts.get("zookeeper_mode", "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        text = "does not tell its version: it must be ZooKeeper {}.{} or later (srvr is not in 4lw.commands.whitelist)"
        yield Finding("warning", about, text.format(*OLDEST_ZOOKEEPER))
    elif (int(found[1]), int(found[2])) < OLDEST_ZOOKEEPER:
        wanted = ".".join(map(str, OLDEST_ZOOKEEPER))
        yield Finding("error", about, f"is ZooKeeper {version}: upgrade to {wanted} or later")
    else:
        yield Finding("ok", about, f"ZooKeeper {version}")
    if mode == "standalone":
        text = "one server alone: while it is away nothing starts and nobody is missed; three are an ensemble"
        yield Finding("warning", about, text)
    elif mode:
        yield Finding("ok", about, f"an ensemble; this server is its {mode}")
    granted, asked = float(facts["session_timeout"]), float(facts["session_asked"])
    if granted > asked + 0.1:
        text = (
            f"sessions time out after {granted:g} s, not the {asked:g} s that were asked for: a killed worker is "
            "noticed that much later; lower tickTime or minSessionTimeout"
        )
        yield Finding("warning", about, text)
    else:
        yield Finding("ok", about, f"sessions time out after {granted:g} s")


def of_queues(others: Sequence[str]) -> Finding:
    """Whether queues are declared on the broker as this app declares them.

    Args:
        others: those that are not.
    """
    if not others:
        return Finding("ok", "queues", "declared as here, or not yet")
    what = f"declared otherwise on the broker: {_some(others)}"
    text = f"{what}; no worker can consume them: rename them, or keep their arguments"
    return Finding("error", "queues", text)


def of_durability(queues: Sequence[Any], delivery_mode: object) -> Iterator[Finding]:
    """Whether RabbitMQ keeps messages over a restart, and has them on more than one node.

    Args:
        queues: of kombu's, as the app declares them.
        delivery_mode: ``task_default_delivery_mode``.
    """
    if delivery_mode in (1, "transient"):
        text = "task_default_delivery_mode is transient: a restart loses what waits; leave it unset"
        yield Finding("error", "settings", text)
    brief = sorted(queue.name for queue in queues if not queue.durable or queue.auto_delete)
    classic = sorted(
        queue.name
        for queue in queues
        if queue.name not in brief and (queue.queue_arguments or {}).get("x-queue-type") != "quorum"
    )
    if brief:
        yield Finding(
            "error", "queues", f"gone with a restart or with their last worker: {_some(brief)}; make them durable"
        )
    if classic:
        text = f"classic, on one node of RabbitMQ and gone while it is: {_some(classic)}; quorum queues are on several"
        yield Finding("warning", "queues", text)


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
    wrong = {name: needed for name, needed in CELERY_DEFAULTS.items() if name in _NEEDED}
    wrong.update(worker_enable_remote_control=True, broker_connection_retry=True)
    wrong = {name: needed for name, needed in wrong.items() if name in conf and conf[name] != needed}
    for name, needed in wrong.items():
        yield Finding("warning", "settings", f"{name} is {conf[name]!r}: {_NEEDED[name]}; write {needed!r}")
    if not wrong:
        yield Finding("ok", "settings", "fit together")


def of_fleet(look: Look) -> Iterator[Finding]:
    """Whether there is somebody to judge and to recover."""
    live = [node for node in workers(look) if state_of(node, look.present) in ("live", "connecting")]
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
    consumed = {queue for node in workers(look) if not node.leaving for queue, _ in node.shards}
    for queue, count in queues.items():
        ever = widest.get(queue, count)
        if queue not in consumed:
            yield Finding(
                "warning",
                queue,
                f"no node consumes its {max(count, ever)} shards: start a worker with -Q {queue}, and it in ha_queues",
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
    "worker_cancel_long_running_tasks_on_connection_loss": "a cut of the connection ends what runs, which runs again",
    "beat_scheduler": "two beats know nothing of each other and fire everything twice (ha_beat_scheduler names where "
    "entries come from)",
    "worker_enable_remote_control": "`ha drain`, revocations and time limits reach no worker",
    "broker_connection_retry": "a worker ends when its broker is away for a moment",
}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


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
