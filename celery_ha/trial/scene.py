"""The story: gather the workers; and in each round give them work, strike one of them, watch, judge."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from celery_ha.keys import shard_name, shard_of
from celery_ha.trial.probe import Work
from celery_ha.trial.report import Report, Round, Timeline
from celery_ha.trial.stage import Stage
from celery_ha.trial.verdict import Death, Execution, executions, first_after, interrupted, judge

#: Seconds in which nothing at all moves, after which we stop waiting, unless a lease lives longer.
PATIENCE = 30.0
#: The blow comes when this part of the tasks is done.
STRIKE_AT = 0.4
#: Seconds without any movement in which we wait for the victim to get something to do.
LULL = 5.0
#: Tasks for each account: enough for them to get into each other's way.
PER_ACCOUNT = 5
#: How long a task takes, in seconds, unless the plan says otherwise.
TASK_SECONDS = (0.03, 0.07)


class GaveUp(Exception):
    """It could not be played to its end."""


@dataclass(frozen=True)
class Plan:
    """What to play."""

    #: In each round.
    tasks: int
    workers: int
    #: Of everything that is left to chance here: the victims and how long tasks take.
    seed: int
    #: Seconds that a lease lives.
    lease_ttl: float
    #: SIGSTOP instead of SIGKILL.
    freeze: bool = False
    rounds: int = 1
    #: How long a task takes, at least and at most.
    task_seconds: tuple[float, float] = TASK_SECONDS
    #: Seconds in which nothing at all moves, after which we stop waiting.
    patience: float = PATIENCE


@dataclass(frozen=True)
class Blow:
    """Whom it hit, when, and what the victim had."""

    death: Death
    wall: float
    lease: str
    shards: frozenset[str]


def play(stage: Stage, work: Work, server: str, plan: Plan) -> Report:
    """Play it to the end; the workers are left running. A round that went wrong is the last one.

    Args:
        stage: with all workers started.
        work: what to publish.
        server: what it runs on, for the report.
        plan: what to play.

    Raises:
        GaveUp: the workers did not come up, or got nothing done before the blow.
        WorkerGone: a worker ended by itself.
        NotOurs: somebody else takes part.
    """
    began, chance = time.monotonic(), random.Random(plan.seed)
    stage.say(f"Starting {len(stage.fleet.names)} workers")
    _gather(stage, plan)
    rounds: list[Round] = []
    for number in range(1, plan.rounds + 1):
        if plan.rounds > 1:
            stage.say(f"Round {number} of {plan.rounds}")
        rounds.append(_play_round(stage, work, plan, f"{number}-", chance))
        if not rounds[-1].verdict.good:
            break
        if number < plan.rounds:
            _replace(stage, rounds[-1].victim, plan)
    return Report(server, plan.workers, plan.seed, plan.freeze, tuple(rounds), time.monotonic() - began)


def _play_round(stage: Stage, work: Work, plan: Plan, prefix: str, chance: random.Random) -> Round:
    began, before = time.monotonic(), stage.done
    published = _publish(stage, work, plan, prefix, chance)
    enough = before + STRIKE_AT * plan.tasks
    if not stage.until(lambda: stage.done >= enough, plan.patience):
        raise GaveUp(f"nothing went on after {stage.done - before} tasks, before anybody was struck")
    blow = _strike(stage, chance.choice(stage.fleet.names), freeze=plan.freeze)
    back = _come_back(stage, blow, plan) if plan.freeze else None
    stage.until(lambda: stage.done >= before + plan.tasks and _quiet(stage, blow), plan.patience)
    runs = [run for run in executions(stage.ledger.events) if run.task.startswith(prefix)]
    return Round(
        victim=blow.death.node,
        failover=stage.failover_of(blow.lease),
        timeline=_timeline(stage, work, blow, published, runs, back),
        verdict=judge(published, runs, blow.death),
        seconds=time.monotonic() - began,
    )


def _gather(stage: Stage, plan: Plan) -> None:
    # A worker that starts shows no movement for long.
    if not stage.until(lambda: stage.everybody_is_there, max(PATIENCE, plan.patience)):
        raise GaveUp("the workers did not come up")
    stage.say(f"All there. A leader judges nobody before it has watched for a whole lease TTL: {plan.lease_ttl:g} s")
    stage.wait(plan.lease_ttl)


def _replace(stage: Stage, victim: str, plan: Plan) -> None:
    """Have as many workers as before; one that was frozen has come back already."""
    if plan.freeze:
        return
    stage.say(f"Starting another {victim}")
    stage.fleet.replace(victim)
    del stage.struck[victim]
    _gather(stage, plan)


def _publish(stage: Stage, work: Work, plan: Plan, prefix: str, chance: random.Random) -> list[str]:
    stage.say(f"Publishing {plan.tasks} tasks")
    accounts = max(1, plan.tasks // PER_ACCOUNT)
    published = []
    for number in range(plan.tasks):
        key, account = f"{prefix}order-{number}", f"{prefix}account-{number % accounts}"
        work.task.delay(key, account, round(chance.uniform(*plan.task_seconds), 3))
        published.append(key)
    return published


def _strike(stage: Stage, victim: str, *, freeze: bool) -> Blow:
    """Strike it while it runs something, if it comes to that."""
    stage.until(lambda: stage.ledger.runs_on(victim) or not stage.sight.waiting, LULL)
    member = stage.sight.members[victim]
    stage.struck[victim] = "frozen" if freeze else "killed"
    # Signals are sent before the clock is read: what ran in between must not count as run afterwards.
    (stage.fleet.freeze if freeze else stage.fleet.kill)(victim)
    blow = Blow(Death(victim, time.monotonic()), time.time(), member.lease, member.shards)
    stage.say(f"{'SIGSTOP' if freeze else 'SIGKILL'} for {victim}")
    return blow


def _come_back(stage: Stage, blow: Blow, plan: Plan) -> float | None:
    """Wake the frozen worker after it was given up; seconds from the blow until it has a new lease."""
    victim = blow.death.node
    if not stage.until(lambda: stage.failover_of(blow.lease) is not None, plan.patience):
        return None
    stage.say(f"{victim} was given up and what it held has moved: SIGCONT")
    del stage.struck[victim]
    stage.fleet.thaw(victim)
    if not stage.until(lambda: stage.is_there(victim, but=blow.lease), plan.patience):
        return None
    stage.say(f"{victim} is back, under a new lease")
    return time.monotonic() - blow.death.at


def _quiet(stage: Stage, blow: Blow) -> bool:
    """Nothing is left that could run once more."""
    return stage.sight.idle and stage.failover_of(blow.lease) is not None


def _timeline(
    stage: Stage, work: Work, blow: Blow, published: list[str], runs: list[Execution], back: float | None
) -> Timeline:
    failover = stage.failover_of(blow.lease)
    running = interrupted(runs, blow.death)
    its = {key for key in published if shard_name(work.queue, shard_of(key, work.shards)) in blow.shards}
    return Timeline(
        noticed=failover.noticed - blow.wall if failover else None,
        requeued=failover.finished - blow.wall if failover else None,
        first_start=first_after(runs, blow.death, its | running),
        first_rerun=first_after(runs, blow.death, running),
        back=back,
    )
