"""The detector, as tables of looks: (start, seconds it took, counter of w1, its connections there, session)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_ha.detector import AFRESH, CONNECTIONS_GONE, STOOD_STILL, Observation, Patience, observe
from celery_ha.model import Leader, Look, Node, Verdict

TTL = 10.0
PATIENCE = Patience(confirm_after=0.5, late_after=1.0)
W1 = Node("w1-lease", "w1@host", connections=("7", "8"), ttl=TTL)
BOTH, ONE, NONE = frozenset({"7", "8"}), frozenset({"8"}), frozenset[str]()

Step = tuple[float, float, int, "frozenset[str] | None", str]


def look(step: Step, node: Node = W1, leader: Leader | None = None) -> Look:
    at, took, counter, present, session = step
    return Look(at, at + took, session, {node.lease: counter}, {node.lease: node}, present, leader)


def judge(steps: Sequence[Step], *, interval: float = 2.0, node: Node = W1) -> tuple[Verdict, ...]:
    """The verdicts of the last look."""
    state: Observation = AFRESH
    verdicts: tuple[Verdict, ...] = ()
    for step in steps:
        state, verdicts = observe(state, look(step, node), interval=interval, patience=PATIENCE)
    return verdicts


def watched(until: float, *, counter: int | None = None, present: frozenset[str] | None = BOTH) -> list[Step]:
    """Looks every two seconds from 0; the counter moves unless it is given."""
    return [(float(at), 0.0, at if counter is None else counter, present, "s") for at in range(0, int(until) + 1, 2)]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        pytest.param(watched(10, counter=1), STOOD_STILL, id="counter_that_stood_for_a_ttl_means_death"),
        pytest.param(watched(8, counter=1), None, id="counter_that_stood_for_less_means_nothing"),
        pytest.param(watched(20), None, id="counter_that_moves_means_life"),
        pytest.param(
            [*watched(8, counter=1), (10.0, 0.0, 2, BOTH, "s")], None, id="counter_that_moved_last_means_life"
        ),
        pytest.param(
            [*watched(8, counter=5), (10.0, 0.0, 1, BOTH, "s")], None, id="counter_that_fell_has_moved"
        ),
        pytest.param(
            [*watched(8, counter=1), (10.0, 1.5, 1, BOTH, "s")], None, id="late_look_judges_nobody"
        ),
        pytest.param(
            [*watched(4, counter=1), (6.0, 1.5, 1, BOTH, "s"), (8.0, 0.0, 1, BOTH, "s"), (10.0, 0.0, 1, BOTH, "s"),
             (12.0, 0.0, 1, BOTH, "s"), (14.0, 0.0, 1, BOTH, "s")],
            None, id="late_look_starts_all_afresh",
        ),
        pytest.param(
            [*watched(4, counter=1), (11.0, 0.0, 1, BOTH, "s")], None, id="observer_that_paused_suspects_itself_first"
        ),
        pytest.param(
            [*watched(8, counter=1), (10.0, 0.0, 1, BOTH, "other")], None, id="new_session_judges_nobody"
        ),
        pytest.param(
            [*watched(8, counter=1), (7.0, 0.0, 1, BOTH, "s"), (8.5, 0.0, 1, BOTH, "s")], None,
            id="clock_that_went_back_judges_nobody",
        ),
        pytest.param(
            [*watched(10), (12.0, 0.0, 12, NONE, "s"), (12.5, 0.0, 12, NONE, "s")], CONNECTIONS_GONE,
            id="connections_that_stay_away_mean_death",
        ),
        pytest.param(
            [*watched(10), (12.0, 0.0, 12, NONE, "s"), (12.4, 0.0, 12, NONE, "s")], None,
            id="connections_gone_for_a_moment_mean_nothing",
        ),
        pytest.param([*watched(10), (12.0, 0.0, 12, NONE, "s")], None, id="first_look_that_misses_kills_nobody"),
        pytest.param(
            [*watched(10), (12.0, 0.0, 12, ONE, "s"), (13.0, 0.0, 12, ONE, "s")], None,
            id="one_connection_of_two_means_life",
        ),
        pytest.param(
            [*watched(10), (12.0, 0.0, 12, NONE, "s"), (12.3, 0.0, 12, BOTH, "s"), (12.6, 0.0, 12, NONE, "s")], None,
            id="connection_that_came_back_restarts_the_count",
        ),
        pytest.param(
            [(0.0, 0.0, 1, NONE, "s"), (2.0, 0.0, 2, NONE, "s")], None,
            id="observer_that_just_began_judges_nobody_by_connections",
        ),
        pytest.param(
            [*watched(10, present=None), (12.0, 0.0, 12, None, "s")], None,
            id="store_that_sees_no_connections_leaves_it_to_the_ttl",
        ),
    ],
)  # fmt: skip
def test_verdict(steps: list[Step], reason: str | None) -> None:
    assert [verdict.reason for verdict in judge(steps)] == ([reason] if reason else [])


def test_verdict_names_the_evidence_that_the_fence_must_still_find() -> None:
    assert judge(watched(10, counter=3)) == (Verdict("w1-lease", STOOD_STILL, 3, ("7", "8")),)


@pytest.mark.parametrize(
    ("present", "seconds", "dead"),
    [(NONE, 0.25, True), (NONE, 0.15, False), (ONE, 5.0, False), (BOTH, 5.0, False)],
    ids=["gone_here_too", "for_a_moment", "one_is_here", "both_are_here"],
)
def test_doubt_shortens_an_absence_and_is_nothing_by_itself(
    present: frozenset[str], seconds: float, dead: bool
) -> None:
    state, verdicts = AFRESH, ()
    for step in (*watched(10), (12.0, 0.0, 12, present, "s"), (12.0 + seconds, 0.0, 13, present, "s")):
        seen = replace(look(step), doubted=frozenset({W1.lease, "stranger"}))
        state, verdicts = observe(state, seen, interval=5.0, patience=PATIENCE)
    assert [verdict.reason for verdict in verdicts] == ([CONNECTIONS_GONE] if dead else [])


def test_a_single_registered_connection_is_never_judged_by() -> None:
    node = replace(W1, connections=("7",))
    steps = [*watched(10), (12.0, 0.0, 12, NONE, "s"), (13.0, 0.0, 12, NONE, "s")]
    assert judge(steps, node=node) == ()


def test_newly_registered_connections_restart_the_count() -> None:
    state = AFRESH
    for step in [*watched(10), (12.0, 0.0, 12, NONE, "s")]:
        state, _ = observe(state, look(step), interval=2.0, patience=PATIENCE)
    again = replace(W1, connections=("9", "10"))
    _, verdicts = observe(state, look((12.6, 0.0, 13, NONE, "s"), again), interval=2.0, patience=PATIENCE)
    assert verdicts == ()


def test_a_dead_rack_is_judged_whole() -> None:
    nodes = {f"n{n}": Node(f"n{n}", f"n{n}@rack", ttl=TTL) for n in range(9)}
    state, verdicts = AFRESH, ()
    for at in range(0, 12, 2):
        seen = Look(at, at, "s", dict.fromkeys(nodes, 1), nodes, None, None)
        state, verdicts = observe(state, seen, interval=2.0, patience=PATIENCE)
    assert [verdict.lease for verdict in verdicts] == list(nodes)


def test_each_node_is_judged_by_its_own_ttl() -> None:
    assert judge(watched(6, counter=1), node=replace(W1, ttl=5.0))[0].reason == STOOD_STILL


@pytest.mark.parametrize(("rounds", "idle"), [((1, 1, 1), 4.0), ((1, 2, 3), 0.0), ((1, 2, 2), 2.0)])
def test_leader_is_idle_since_its_last_finished_round(rounds: tuple[int, ...], idle: float) -> None:
    state = AFRESH
    for index, count in enumerate(rounds):
        leader = Leader("w1-lease", term=3, rounds=count)
        state, _ = observe(
            state, look((index * 2.0, 0.0, index, BOTH, "s"), leader=leader), interval=2.0, patience=PATIENCE
        )
    assert state.idle(4.0) == idle


def test_new_term_is_no_idleness_of_the_old() -> None:
    state = AFRESH
    for at, term in ((0.0, 1), (2.0, 1), (4.0, 2)):
        seen = look((at, 0.0, 1, BOTH, "s"), leader=Leader("w1-lease", term, 0))
        state, _ = observe(state, seen, interval=2.0, patience=PATIENCE)
    assert state.idle(5.0) == 1.0


@given(
    renewals=st.lists(st.floats(0.1, TTL * 0.6), min_size=1, max_size=30),
    gaps=st.lists(st.tuples(st.floats(0.05, 2.9), st.floats(0.0, 0.9)), min_size=1, max_size=60),
)
def test_node_that_renews_in_time_is_never_dead(renewals: list[float], gaps: list[tuple[float, float]]) -> None:
    """Whatever the rhythm of looks: renewals at most 0.6 TTL apart, looks that took up to 0.9 s."""
    state, now = AFRESH, 0.0
    times = [sum(renewals[: n + 1]) for n in range(len(renewals))]
    while times[-1] < 200:
        times.append(times[-1] + renewals[len(times) % len(renewals)])
    for gap, took in gaps:
        now += gap
        counter = sum(at <= now + took / 2 for at in times)
        state, verdicts = observe(state, look((now, took, counter, BOTH, "s")), interval=2.0, patience=PATIENCE)
        assert verdicts == ()
        now += took
