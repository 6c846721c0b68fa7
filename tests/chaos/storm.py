"""A stream of every kind of task, and every kind of fault under it at random; then a verdict.

Everything random comes from one seed. What processes do with it is up to the machine, so a seed
repeats the blows and not their every consequence.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from celery_ha.envelope import task_id
from celery_ha.model import Failover
from celery_ha.store.redis.records import load_failover
from tests.chaos.ground import Ground
from tests.chaos.mix import Published
from tests.chaos.plan import Plan
from tests.chaos.publisher import HANG, Publisher
from tests.chaos.striker import OPTIONS, Striker
from tests.chaos.verdict import Outcome, expected, judge_ledger, takeovers, unconfirmed, worn_out
from tests.support.fleet import eventually
from tests.support.leaks import leaks
from tests.support.scene import Scene, scene

#: The server forgets no write that it has confirmed, whenever it is killed.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
#: Attempts of a task; a good one is seldom cut off so often.
MAX_DELIVERIES = 6
CONF = {
    "ha_max_deliveries": MAX_DELIVERIES,
    # Shorter than we wait for the last task: a wedged loop is found, too.
    "ha_wedged_after": 15.0,
    # What retries and callbacks publish survives a restart of the server: Celery drops a task whose retry cannot be sent.
    "task_publish_retry_policy": {"max_retries": 60, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
}
#: Seconds within which a fence is put down to a blow; a node that is struck while the server stands still dies late.
SEQUEL = 60.0


def storm(plan: Plan, ground: Ground, folder: Path, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run the plan; ledger and logs stay in the folder.

    Args:
        plan: what to do.
        ground: the servers; a Redis was started with :data:`DURABLE`.
        folder: an empty one.
        tell: is told how far we are.
    """
    conf, broker = CONF, None
    if ground.rabbit is not None:
        conf, broker = {**CONF, "ha_store": ground.store.url}, ground.rabbit.url()
    settings = {"PROBE_PREFETCH": "4", "PROBE_CONF": json.dumps(conf), "PYTHONFAULTHANDLER": "1"}
    settings["PROBE_BACKEND"] = ground.results.url
    began = time.monotonic()
    with scene(ground.store, folder, ttl=plan.ttl, broker=broker, options=OPTIONS, **settings) as made:
        made.top_up(plan.workers)
        tell(f"{plan.workers} workers are ready; seed {plan.seed}")
        publisher, striker = Publisher(made, plan), Striker(made, ground, plan, tell)
        with publisher.at_work():
            striker.strike_all()
        tell(f"published {len(publisher.done.orders)}; waiting for the last of them")
        stuck = _wait_until_quiet(made, ground, publisher.done)
        outcome = _judge(made, ground, plan, publisher.done, striker)
        outcome.broken.leaks += stuck
        if stuck:
            _dump_stacks(made)
        else:
            outcome.broken.leaks += ground.unanswered(made)
        gc.collect()  # results unsubscribe when they go, while there is a backend
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _wait_until_quiet(made: Scene, ground: Ground, done: Published) -> list[str]:
    """As long as there is progress; what is not there then is lost. Returns what is left on the servers."""
    keys, seen, since = expected(done), -1, time.monotonic()
    due = max(done.due.values(), default=0.0)
    while time.monotonic() - since < HANG:
        missing = len(made.ledger.missing(keys)) + ground.left(made)
        if missing == 0 and time.time() > due:
            break
        if missing != seen:
            seen, since = missing, time.monotonic()
        time.sleep(0.2)
    else:
        return [*ground.in_flight(made), *ground.waiting(made)]
    ground.settle(made)
    return []


def _dump_stacks(made: Scene) -> None:
    """Have every process say in its log where it is: what holds a message up is often a thread that waits."""
    for worker in made.live:
        for pid in [*worker.children(), worker.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
    time.sleep(1.0)


def _judge(made: Scene, ground: Ground, plan: Plan, done: Published, striker: Striker) -> Outcome:
    outcome = Outcome(seed=plan.seed, blows=dict(striker.dealt))
    harms = unconfirmed(made.harms, striker.outages)
    judge_ledger(outcome, made.ledger, done, harms, striker.longest_stall, MAX_DELIVERIES)
    killed = [harm for harm in made.harms if harm.lasting < plan.ttl and harm.pid is None]
    took = takeovers(made.ledger, killed)
    if took:
        outcome.takeover_median, outcome.takeover_worst = round(statistics.median(took), 2), round(took[-1], 2)
    _judge_letters(outcome, made, ground, done, worn_out(made.ledger.by_key(), harms, MAX_DELIVERIES))
    failovers = [load_failover(entry) for entry in made.redis.lrange(f"{made.prefix}_ha:history", 0, -1)]
    outcome.failovers = len(failovers)
    told = {worker.name for worker in striker.told}  # one that goes while the server is away cannot say goodbye
    strange = [each for each in failovers if not _struck(each, made) and each.fenced.node.name not in told]
    outcome.broken.false_deaths = [_obituary(each) for each in strange]
    outcome.broken.exits = _exits(made, striker)
    outcome.broken.stayed = striker.stayed
    outcome.broken.leaks = leaks(made)
    return outcome


def _judge_letters(outcome: Outcome, made: Scene, ground: Ground, done: Published, worn: set[str]) -> None:
    """Every poison task is a dead letter, told to have failed, and nothing else is one but what was as unlucky.

    RabbitMQ has a second copy of one whose worker died between the first one and the end of the message.
    """
    app = made.probe.app
    dead = [task_id(letter.claim.payload) for letter in ground.letters(made)]
    if ground.rabbit is not None:
        dead = sorted(set(dead))
    poison = {done.ids[order.key]: order.key for order in done.of("poison")}
    known = {task: key for key, task in done.ids.items()}
    for task, key in poison.items():
        if dead.count(task) != 1 or not app.AsyncResult(task).failed():
            outcome.broken.poison_not_stopped.append(key)
    doubtful = [key for key in done.doubtful if key.startswith("poison")]
    good = [task for task in dead if task not in poison and known.get(task) not in worn]
    outcome.broken.lost = [key for key in outcome.broken.lost if key not in worn or done.ids.get(key) not in dead]
    outcome.broken.good_given_up = [known.get(task, str(task)) for task in good[len(doubtful) :]]


def _struck(failover: Failover, made: Scene) -> bool:
    """Whether somebody's hand is behind a recovery; a goodbye with luggage is no death."""
    fenced = failover.fenced
    return fenced.reason.startswith("closed") or any(
        harm.node == fenced.node.name and harm.pid is None and harm.at <= fenced.at <= harm.at + SEQUEL
        for harm in made.harms
    )


def _obituary(failover: Failover) -> str:
    return f"{failover.fenced.node.name}: {failover.fenced.reason}"


def _exits(made: Scene, striker: Striker) -> list[str]:
    """Who ended in another way than it was told to: killed, or asked to go and gone well."""
    quits = {harm.node for harm in made.harms if harm.lasting == HANG}
    found = []
    for worker in made.fleet.workers:
        code = worker.process.poll()
        if code in (None, -signal.SIGKILL) or worker.name in quits or (code == 0 and striker.asked(worker)):
            continue
        found.append(f"{worker.name}: exit code {code}")
    eventually(lambda: {node.name for node in made.nodes()} == {worker.name for worker in made.live}, why="registered")
    return found
