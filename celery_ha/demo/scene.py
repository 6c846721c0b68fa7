"""The story: gather the workers, give them work, strike one of them, watch, judge."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from celery_ha.demo.report import Report, Timeline
from celery_ha.demo.settings import LEASE_TTL, QUEUE, SHARDS
from celery_ha.demo.stage import Stage
from celery_ha.demo.verdict import Death, executions, first_after, interrupted, judge
from celery_ha.keys import shard_name, shard_of

#: Seconds in which nothing at all moves, after which we stop waiting.
PATIENCE = 30.0
#: The blow comes when this part of the tasks is done.
STRIKE_AT = 0.4
#: Tasks for each account: enough for them to get into each other's way.
PER_ACCOUNT = 5
#: How long a task takes, in seconds.
TASK_SECONDS = (0.03, 0.07)


class GaveUp(Exception):
    """The demo could not be played to its end."""


@dataclass(frozen=True)
class Plan:
    """What to play."""

    tasks: int
    workers: int
    #: Of everything that is left to chance here: the victim and how long tasks take.
    seed: int
    #: SIGSTOP instead of SIGKILL.
    freeze: bool = False


@dataclass(frozen=True)
class Blow:
    """Whom it hit, when, and what the victim had."""

    death: Death
    wall: float
    lease: str
    shards: frozenset[str]


def play(stage: Stage, server: str, plan: Plan) -> Report:
    """Play it to the end; the workers are left running.

    Args:
        stage: with all workers started.
        server: what it runs on, for the report.
        plan: what to play.

    Raises:
        GaveUp: the workers did not come up, or got nothing done before the blow.
        WorkerGone: a worker ended by itself.
    """
    began, chance = time.monotonic(), random.Random(plan.seed)
    _gather(stage)
    published = _publish(stage, chance)
    if not stage.until(lambda: stage.done >= STRIKE_AT * stage.total, PATIENCE):
        raise GaveUp(f"nothing went on after {stage.done} tasks, before anybody was struck")
    blow = _strike(stage, chance.choice(stage.fleet.names), freeze=plan.freeze)
    back = _come_back(stage, blow) if plan.freeze else None
    stage.until(lambda: _over(stage, blow), PATIENCE)
    runs = executions(stage.ledger.events)
    failover = stage.failover_of(blow.death.node)
    running = interrupted(runs, blow.death)
    its = {key for key in published if shard_name(QUEUE, shard_of(key, SHARDS)) in blow.shards}
    return Report(
        server=server,
        workers=plan.workers,
        seed=plan.seed,
        victim=blow.death.node,
        frozen=plan.freeze,
        failover=failover,
        timeline=Timeline(
            noticed=failover.noticed - blow.wall if failover else None,
            requeued=failover.finished - blow.wall if failover else None,
            first_start=first_after(runs, blow.death, its | running),
            first_rerun=first_after(runs, blow.death, running),
            back=back,
        ),
        verdict=judge(published, runs, blow.death),
        seconds=time.monotonic() - began,
    )


def _gather(stage: Stage) -> None:
    stage.say(f"Starting {len(stage.fleet.names)} workers")
    if not stage.until(lambda: stage.everybody_is_there, PATIENCE):
        raise GaveUp("the workers did not come up")
    stage.say(f"All there. A leader judges nobody before it has watched for a whole lease TTL: {LEASE_TTL:g} s")
    stage.wait(LEASE_TTL)


def _publish(stage: Stage, chance: random.Random) -> list[str]:
    stage.say(f"Publishing {stage.total} tasks")
    accounts = max(1, stage.total // PER_ACCOUNT)
    published = []
    for number in range(stage.total):
        key = f"order-{number}"
        stage.charge.delay(key, f"account-{number % accounts}", round(chance.uniform(*TASK_SECONDS), 3))
        published.append(key)
    return published


def _strike(stage: Stage, victim: str, *, freeze: bool) -> Blow:
    member = stage.sight.members[victim]
    stage.struck[victim] = "frozen" if freeze else "killed"
    # Signals are sent before the clock is read: what ran in between must not count as run afterwards.
    (stage.fleet.freeze if freeze else stage.fleet.kill)(victim)
    blow = Blow(Death(victim, time.monotonic()), time.time(), member.lease, member.shards)
    stage.say(f"{'SIGSTOP' if freeze else 'SIGKILL'} for {victim}")
    return blow


def _come_back(stage: Stage, blow: Blow) -> float | None:
    """Wake the frozen worker after it was given up; seconds from the blow until it has a new lease."""
    victim = blow.death.node
    if not stage.until(lambda: stage.failover_of(victim) is not None, PATIENCE):
        return None
    stage.say(f"{victim} was given up and what it held has moved: SIGCONT")
    del stage.struck[victim]
    stage.fleet.thaw(victim)

    def returned() -> bool:
        member = stage.sight.members.get(victim)
        return member is not None and member.lease != blow.lease

    if not stage.until(returned, PATIENCE):
        return None
    stage.say(f"{victim} is back, under a new lease")
    return time.monotonic() - blow.death.at


def _over(stage: Stage, blow: Blow) -> bool:
    """Everything is done and nothing is left that could run once more."""
    return stage.done >= stage.total and stage.sight.idle and stage.failover_of(blow.death.node) is not None
