"""What a step of the observer means to the world, told once however often it is seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from celery_ha.failover.observer import Observed
from celery_ha.failover.roles import Role
from celery_ha.model import FencedLease, Leader, Look, Node, Recovered, Verdict
from celery_ha.worker.announce import Told, announce

pytestmark = pytest.mark.unit

NODES = {lease: Node(lease, f"{lease}@host", queues=("q",)) for lease in ("a", "b", "c")}
LOOK = Look(0.0, 0.0, "s", {}, NODES, None, Leader("a", 4))
DEAD = Verdict("b", "connections gone", 1, ())
FENCED = FencedLease(NODES["b"], 4, "connections gone", 100.0)


def seen(role: Role = Role.LEADER, look: Look | None = LOOK, missing: Collection[str] | None = (), **more) -> Observed:
    return Observed(role, 0.1, look, missing=None if missing is None else frozenset(missing), **more)


class Story:
    """Steps one after the other, a second each, seen by ``a``."""

    def __init__(self) -> None:
        self.told, self.now = Told(), 0.0

    def step(self, observed: Observed, silent: Collection[str] = ()) -> list[str]:
        """What is told: the kind, and whose lease it is about."""
        return [f"{each.kind.name} {each.fields['lease']}" for each in self.news(observed, silent)]

    def news(self, observed: Observed, silent: Collection[str] = ()) -> list:
        self.now += 1.0
        self.told, found = announce(
            self.told, observed, "a@host", silent, lambda source: source.partition("|")[0], self.now
        )
        return found


def without(lease: str, *fenced: FencedLease) -> Look:
    return replace(LOOK, nodes={key: node for key, node in NODES.items() if key != lease}, fenced=fenced)


def test_a_death_is_told_once_in_its_order():
    story = Story()
    assert story.step(seen(missing="b")) == ["ha-suspected b"]
    assert story.step(seen(missing="b")) == []
    assert story.step(seen(missing="b", judged=(DEAD,), fenced=(DEAD,))) == ["ha-verdict b", "ha-fenced b"]
    recovered = Recovered("b", 3, 1, 2, {"q.1": 1, "q.1|3": 1, "celery": 1})
    news = story.news(seen(look=without("b", FENCED), recovered=(recovered,)))
    assert [each.kind.name for each in news] == ["ha-requeued", "ha-requeued", "ha-failover"]
    # Priorities are one queue
    assert news[-1].fields["queues"] == {"celery": 1, "q.1": 2}
    assert news[-1].fields == {
        "node": "b@host", "lease": "b", "term": 4, "reason": "connections gone",
        "requeued": 3, "restarted": 1, "locks": 2, "queues": {"celery": 1, "q.1": 2}, "seconds": 1.0,
    }  # fmt: skip
    assert story.step(seen(look=without("b"))) == []


def test_a_fence_that_does_not_hold_yet_repeats_no_verdict():
    story = Story()
    assert story.step(seen(judged=(DEAD,))) == ["ha-verdict b"]
    assert story.step(seen(judged=(DEAD,))) == []
    assert story.step(seen(judged=(DEAD,), fenced=(DEAD,))) == ["ha-fenced b"]


def test_a_fence_whose_step_was_cut_short_is_told_when_it_is_seen():
    story = Story()
    assert story.step(seen(look=without("b", FENCED))) == ["ha-fenced b"]
    assert story.step(seen(look=without("b", FENCED))) == []


def test_what_another_leader_fenced_is_not_told_again_and_its_recovery_is():
    story = Story()
    before = replace(FENCED, term=3)
    assert story.step(seen(look=without("b", before))) == []
    recovered = (Recovered("b"),)
    assert story.step(seen(look=without("b", before), recovered=recovered)) == ["ha-failover b"]


def test_a_suspect_that_shows_life_was_suspected_falsely():
    story = Story()
    story.step(seen(missing="b"))
    (news,) = story.news(seen())
    assert (news.kind.name, news.fields["lease"], news.fields["seconds"]) == ("ha-cleared", "b", 1.0)


def test_silence_and_absence_are_one_suspicion():
    story = Story()
    assert [each.fields["reason"] for each in story.news(seen(), ["b@host"])] == ["heartbeats missing"]
    assert story.step(seen(missing="b"), ["b@host"]) == []
    assert story.step(seen(missing="b")) == []
    assert story.step(seen()) == ["ha-cleared b"]


def test_a_look_that_proves_nothing_clears_nobody():
    story = Story()
    story.step(seen(missing="b"))
    assert story.step(seen(missing=None)) == []
    assert story.step(seen(look=None)) == []
    assert story.step(seen(missing="b")) == []


@pytest.mark.parametrize("after", [seen(look=without("b")), seen(Role.DEPUTY)])
def test_a_suspect_that_said_goodbye_or_is_another_leaders_is_cleared_by_nobody(after):
    story = Story()
    story.step(seen(missing="b"))
    assert story.step(after) == []


@pytest.mark.parametrize("role", [Role.DEPUTY, Role.WATCHER])
def test_whoever_does_not_lead_suspects_aloud_nobody(role):
    assert Story().step(seen(role, missing="b"), ["c@host"]) == []


def test_an_election_says_which_term_it_ends():
    (news,) = Story().news(seen(Role.DEPUTY, elected=5))
    assert news.fields == {
        "node": "a@host", "lease": "a", "term": 5, "reason": "the leader of term 4 is gone or judges nobody",
    }  # fmt: skip
    (first,) = Story().news(seen(Role.WATCHER, look=replace(LOOK, leader=None), elected=1))
    assert first.fields["reason"] == "nobody led"


def test_whoever_deposes_a_dead_leader_tells_of_its_end_too():
    dead = Verdict("c", "renewals stood still", 1, ())
    story = Story()
    told = story.step(seen(Role.DEPUTY, elected=5, judged=(dead,), fenced=(dead,)))
    assert told == ["ha-leader a", "ha-verdict c", "ha-fenced c"]


def test_a_lease_that_only_the_broker_knows_is_recovered_without_a_name():
    (news,) = Story().news(seen(recovered=(Recovered("x"),)))
    assert (news.kind.name, news.fields["node"], news.fields["reason"]) == (
        "ha-failover",
        "",
        "the store does not know it",
    )
