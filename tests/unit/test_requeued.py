"""What Flower is told of the tasks of dead workers, on Celery's own state of events."""

from __future__ import annotations

import pytest
from celery.events.state import State

from celery_ha.flower.requeued import LIMIT, Requeued

FAILOVER = {"node": "w1", "lease": "a", "reason": "connections gone", "fenced_at": 100.0, "queues": {"q.1": 1}}


def told(state: State, kind: str, uuid: str, node: str, at: float) -> None:
    state.event(
        {
            "type": f"task-{kind}",
            "uuid": uuid,
            "hostname": node,
            "timestamp": at,
            "local_received": at,
            "clock": 1,
            "name": "t",
        }
    )


@pytest.fixture
def state() -> State:
    """A task that a dead worker runs, and one that it runs since it came back under its name."""
    made = State()
    told(made, "received", "t1", "w1", 90)
    told(made, "started", "t1", "w1", 91)
    told(made, "started", "since", "w1", 110)
    return made


def test_a_task_of_a_dead_worker_is_not_started_for_ever(state: State):
    requeued = Requeued()
    requeued.mark(state, [FAILOVER])
    assert (state.tasks["t1"].state, state.tasks["since"].state) == ("RETRY", "STARTED")
    (listed,) = requeued.listed(state)
    assert (listed["task_id"], listed["from"], listed["queues"], listed["node"]) == ("t1", "w1", ["q.1"], None)
    # It is no sign of life
    assert max(state.workers["w1"].heartbeats) == 110
    # And goes on as soon as somebody else has it
    told(state, "received", "t1", "w2", 120)
    told(state, "started", "t1", "w2", 121)
    requeued.mark(state, [FAILOVER])
    (listed,) = requeued.listed(state)
    assert (listed["state"], listed["node"]) == ("STARTED", "w2")


def test_a_task_that_moved_before_anybody_looked_is_listed_too(state: State):
    requeued = Requeued()
    requeued.mark(state, [])
    told(state, "started", "t1", "w2", 120)
    requeued.mark(state, [FAILOVER])
    (listed,) = requeued.listed(state)
    assert (listed["task_id"], listed["from"], listed["node"]) == ("t1", "w1", "w2")


@pytest.mark.parametrize("kind", ["succeeded", "failed"])
def test_a_task_that_ended_before_its_worker_died_is_left_alone(state: State, kind: str):
    requeued = Requeued()
    requeued.mark(state, [])
    told(state, kind, "t1", "w1", 99)
    requeued.mark(state, [FAILOVER])
    assert state.tasks["t1"].state in {"SUCCESS", "FAILURE"}
    assert requeued.listed(state) == []


def test_the_last_failover_of_a_name_counts(state: State):
    requeued = Requeued()
    requeued.mark(state, [{**FAILOVER, "lease": "b", "fenced_at": 130.0}, FAILOVER])
    assert state.tasks["since"].state == "RETRY"


def test_the_list_is_bounded():
    state = State()
    for at in range(LIMIT + 5):
        told(state, "started", f"t{at}", "w1", 90)
    requeued = Requeued()
    requeued.mark(state, [FAILOVER])
    assert len(requeued.listed(state)) == LIMIT
