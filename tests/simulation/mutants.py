"""One mutant a rule: the rule switched off, which the simulation must notice.

A mutant overrides a part of the model or patches a name of the product for as long as it is applied;
the product itself has no switches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from celery_ha import detector
from celery_ha.attempts.memory import MemoryAttempts, _Try
from celery_ha.brokers import memory as _memory
from celery_ha.brokers.memory import MemoryBroker
from celery_ha.failover import observer as _observer
from celery_ha.failover import recovery
from celery_ha.failover.keeper import Keeper
from celery_ha.failover.observer import _IDLE, Observer
from celery_ha.model import Claim, Ending, Look, Settlement, Verdict
from celery_ha.parking import memory as _parking
from celery_ha.store.memory import MemoryServer
from celery_ha.store.memory import locks as _locks
from celery_ha.store.memory.court import MemoryCourt
from tests.simulation import worker as _worker
from tests.simulation.ledger import TrackedBroker, TrackedStore
from tests.simulation.plain import Plain
from tests.simulation.replica import Replica
from tests.simulation.worker import Process
from tests.simulation.world import Producer, World


@dataclass(frozen=True)
class Mutant:
    """A rule that is off."""

    #: What is off, as a sentence.
    what: str
    #: Words of the violation by which it is found; the first is what people are told.
    breaks: tuple[str, ...]
    #: Seeds within which it must be found.
    within: int
    parts: dict[str, type] = field(default_factory=dict)
    #: Whether a seed's world has what the rule is about; others are not run.
    needs: Callable[[World], bool] = field(default=lambda _world: True, kw_only=True)
    #: (owner, name, replacement)
    patches: tuple[tuple[Any, str, Any], ...] = ()

    @contextmanager
    def applied(self) -> Iterator[dict[str, type]]:
        """Switch the rule off; gives the classes for :class:`~tests.simulation.world.World`."""
        with ExitStack() as stack:
            for owner, name, value in self.patches:
                stack.enter_context(patch.object(owner, name, value))
            yield self.parts


class StartsWithoutAsking(Process):
    def ask_start(self, lease: str, claim: Claim) -> bool:
        return True


class LaunchesWithoutTrust(Process):
    def may_run(self) -> bool:
        return True


class ForgetsWhatItHolds(Process):
    def reconcile(self, lease: str) -> None:
        self.reconcile_at = float("inf")


class FreesNothing(Process):
    def free(self, claims: tuple[str, ...]) -> None:
        pass


class GivesUpWhatIsMarked(Process):
    def _receive(self, claim: Claim) -> None:
        if not self.hopeless(claim):
            super()._receive(claim)
            return
        del self.reserved[claim.id]
        self.condemn(claim)


class NeverGivesUp(Process):
    def hopeless(self, claim: Claim) -> bool:
        return False


class BuriesBeforeItTells(Process):
    def condemn(self, claim: Claim) -> None:
        self.outbox[claim.id] = Settlement(claim.id, Ending.DEAD)


class LeavesLeftovers(Process):
    def _free_leftovers(self, lease: str) -> None:
        pass


class LeavesUnacked(Process):
    def restore_unacked(self) -> None:
        pass


class GivesNothingBack(Plain):
    def give_back(self, leases: list[str], broker: MemoryBroker) -> None:
        for lease in leases:
            broker.server.flights.pop(lease)


class ReadsNoRevocations(Process):
    def read_revocations(self) -> None:
        pass


class KeepsItsShards(Process):
    def give_shards_away(self) -> None:
        pass


class CountsItsOwnShards(Process):
    def widest(self, *, opening: bool) -> int:
        return self.setting


class ReadsTheCountOnce(Process):
    def widest(self, *, opening: bool) -> int:
        return super().widest(opening=opening) if opening else self.shards


class ConsumesShardsOnly(Process):
    def queues(self) -> tuple[str, ...]:
        return tuple(sorted(self.shards_owned)) if self.world.sharding.on else super().queues()


class RingsNobody(TrackedStore):
    def members_changed(self) -> None:
        MemoryServer.members_changed(self)


class WaitsForNoReplica(Replica):
    def waits_for(self, name: str, result: Any) -> bool:
        return False


class RenewsWedged(Process):
    def renew(self, keeper: Keeper) -> float:
        return keeper.step().again_in


class ActsForItsCurrentLease(Process):
    def lease_of(self, child: Any) -> str:
        return self.lease


class WritesUnchecked(Process):
    def child_may_write(self, child: Any) -> bool:
        return True


class PublishesWithoutId(Producer):
    def publish_id(self, n: int) -> None:
        return None


class FencesInTheStoreOnly(TrackedBroker):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.flights = defaultdict(dict)

    def shut(self, lease: str) -> None:
        super().shut(lease)
        self.open.add(lease)

    def put_back(self, claim: Claim, payload: bytes) -> bool:
        self.open.discard(claim.lease)
        try:
            return super().put_back(claim, payload)
        finally:
            self.open.add(claim.lease)


class CountsTokensFromOne(TrackedStore):
    def next_token(self) -> int:
        self.memory.token += 1
        return self.memory.token


_observe = detector.observe
_recover = recovery.recover


def _never_late(state: Any, look: Look, *, interval: float, patience: detector.Patience) -> Any:
    patience = replace(patience, late_after=float("inf"))
    return _observe(state, look, interval=interval, patience=patience)


def _at_once(state: Any, look: Look, *, interval: float, patience: detector.Patience) -> Any:
    return _observe(state, look, interval=interval, patience=replace(patience, confirm_after=0.0))


def _doubt_kills(state: Any, look: Look, *, interval: float, patience: detector.Patience) -> Any:
    state, verdicts = _observe(state, look, interval=interval, patience=patience)
    doubted = [look.nodes[lease] for lease in sorted(look.doubted & look.nodes.keys())]
    more = [Verdict(node.lease, "doubted", look.counters[node.lease], node.connections) for node in doubted]
    return state, (*verdicts, *more)


def _step_on(self: Observer, suspected: Any = ()) -> Any:
    """A failed look leaves the observation as it was, and no gap is seen either."""
    before = self._state
    done = _step(self, suspected)
    if done.look is None:
        self._state = before
        self._interval = 100.0
    return done


def _one_by_one(fenced: Any, broker: Any, locks: Any, court: Any, *, strangers: Any = ()) -> Any:
    done = [_recover([item], broker, locks, court) for item in fenced]
    return [result for part in [*done, _recover([], broker, locks, court, strangers=strangers)] for result in part]


def _leave_with_luggage(self: MemoryBroker, lease: str) -> bool:
    self.server.flights.pop(lease, None)
    self.server.open.discard(lease)
    return True


def _newest_to_the_front(self: MemoryBroker, claims: Any) -> int:
    oldest_first = sorted(claims, key=lambda item: item[0].number)
    return sum(self.server.put_back(claim, payload) for claim, payload in oldest_first)


def _same_task_takes(server: Any, slot: Any, task: str) -> bool:
    lock = server.memory.locks.get(slot)
    return bool(lock and lock.holder.task == task) or _is_due_to(server, slot, task)


def _only_the_last_id(self: MemoryBroker, publish_id: str) -> bool:
    known, producer = self.server.published, publish_id.rpartition(".")[0]
    seen = publish_id in known
    for other in [other for other in known if other.rpartition(".")[0] == producer]:
        del known[other]
    known[publish_id] = 0.0
    return seen


def _nothing(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def _refuse_nothing(self: MemoryCourt, term: int, by: str, lease: str) -> bool:
    with self._client.call() as server:
        return not server.is_open(lease)


def _keep_whatever(self: MemoryCourt, term: int, by: str, version: int, rings: Any) -> bool:
    with self._client.call() as server:
        server.memory.rings = dict(rings)
        return True


_is_due_to = _locks.is_due_to
_watch_leader = Observer._watch_leader
_step = Observer.step


def _rounds_unwatched(self: Observer, look: Look, leader: Any, verdicts: Any) -> Any:
    if not any(verdict.lease == leader.lease for verdict in verdicts):
        return _IDLE
    return _watch_leader(self, look, leader, verdicts)


MUTANTS: dict[str, Mutant] = {
    "rule_1_start_is_no_write": Mutant(
        "a prefetched task starts without the script that marks it", ("G2",), 50, {"process": StartsWithoutAsking}
    ),
    "rule_1_deadline_not_looked_at": Mutant(
        "nobody looks at the trust deadline right before the body", ("G2",), 1000, {"process": LaunchesWithoutTrust}
    ),
    "rule_2_held_not_read": Mutant(
        "a node does not read what it holds after a reconnect", ("liveness",), 300, {"process": ForgetsWhatItHolds}
    ),
    "rule_3_late_look_counts": Mutant(
        "a late look, or a gap between looks, starts nothing afresh", ("G5",), 1500,
        patches=((_observer, "observe", _never_late),),
        needs=lambda world: world.has("stall") or world.has("outage"),
    ),
    "rule_3_failed_look_counts": Mutant(
        "a look that failed is no break in the observation", ("G5",), 500,
        patches=((Observer, "step", _step_on),),
    ),
    "rule_3_absence_at_once": Mutant(
        "the first look that misses the connections is enough", ("G5",), 500,
        patches=((_observer, "observe", _at_once),),
    ),
    "rule_3_doubt_is_death": Mutant(
        "that RabbitMQ has closed a connection is enough", ("G5",), 500,
        patches=((_observer, "observe", _doubt_kills),),
        needs=lambda world: world.rabbit.on,
    ),
    "rule_4_same_task_takes": Mutant(
        "a doubled task takes the lock from its healthy twin", ("G3",), 1000,
        patches=((_locks, "is_due_to", _same_task_takes),),
    ),
    "rule_5_end_frees_nothing": Mutant(
        "the end of a claim does not free its locks", ("liveness",), 300, {"process": FreesNothing}
    ),
    "rule_5_end_forgotten": Mutant(
        "a claim that ended is not remembered", ("liveness", "G3"), 1000,
        patches=((MemoryServer, "has_ended", _nothing(False)),),
    ),
    "rule_6_fenced_in_the_store_only": Mutant(
        "the broker goes on accepting a fenced lease", ("G2",), 500, {"broker": FencesInTheStoreOnly}
    ),
    "rule_6_strangers_left": Mutant(
        "claims of a lease that the store never knew are left where they are", ("liveness",), 1000,
        patches=((Observer, "_ripe_strangers", _nothing([])),),
    ),
    "rule_6_strangers_not_refused": Mutant(
        "the store does not refuse a stranger before the broker fences it", ("G5",), 500,
        patches=((MemoryCourt, "refuse", _refuse_nothing),),
    ),
    "rule_7_luggage_left_behind": Mutant(
        "a goodbye deletes the lease with what it holds", ("G1",), 500,
        patches=((MemoryBroker, "leave", _leave_with_luggage),),
    ),
    "rule_8_no_trust": Mutant(
        "the lock of an interrupted task is freed", ("G3",), 500, patches=((recovery, "_restarted", _nothing({})),)
    ),
    "rule_9_baton_dropped": Mutant(
        "a lock that becomes free is not handed on, and nobody sweeps", ("liveness",), 300,
        patches=((_locks, "_hand_on", _nothing(False)), (_locks.MemoryLocks, "sweep", _nothing(0))),
    ),
    "rule_9_busy_not_asked_again": Mutant(
        "parking does not look whether the lock is busy still, and nobody sweeps", ("liveness",), 1000,
        patches=((_parking, "serve_line", _nothing(0)), (_locks.MemoryLocks, "sweep", _nothing(0))),
    ),
    "rule_10_no_deputies": Mutant(
        "nobody deposes a dead leader", ("liveness",), 100, patches=((Observer, "_watch_leader", _nothing(_IDLE)),)
    ),
    "rule_10_rounds_unwatched": Mutant(
        "a leader that judges nobody keeps the office", ("liveness",), 1000,
        patches=((Observer, "_watch_leader", _rounds_unwatched),),
    ),
    "rule_10_wedged_renews": Mutant(
        "a node whose main loop is wedged goes on renewing", ("liveness",), 300, {"process": RenewsWedged}
    ),
    "rule_10_bells_silent": Mutant(
        "a change of members rings nobody's bell", ("handover",), 2000, {"store": RingsNobody},
        needs=lambda world: world.sharding.on and world.gentle,
    ),
    "rule_11_current_lease": Mutant(
        "a child acts for the lease its node has now", ("G3",), 1000, {"process": ActsForItsCurrentLease}
    ),
    "rule_12_tokens_from_one": Mutant(
        "tokens are counted without the server's time", ("G3",), 500, {"store": CountsTokensFromOne}
    ),
    "rule_12_no_wait": Mutant(
        "a fence and a grant do not wait for the replica", ("G3", "G2", "G5"), 2000, {"replica": WaitsForNoReplica},
        needs=lambda world: world.replica is not None,
    ),
    "rule_5_leftovers_stay": Mutant(
        "locks of attempts that are over stay when the store lost their release", ("liveness", "G3"), 2000,
        {"process": LeavesLeftovers},
        needs=lambda world: world.replica is not None,
    ),
    "rule_13_unchecked_writes": Mutant(
        "a body writes its result without checking its claim", ("G2",), 500, {"process": WritesUnchecked}
    ),
    "rule_14_no_publish_id": Mutant(
        "a repeated publish is not recognised", ("G1",), 200, {"producer": PublishesWithoutId}
    ),
    "rule_14_only_the_last_id": Mutant(
        "only the last publish id of a producer is refused", ("G1",), 1000,
        patches=((MemoryBroker, "_seen", _only_the_last_id),),
    ),
    "rule_15_unstarted_not_counted": Mutant(
        "deliveries that end before the start are not counted", ("liveness",), 100,
        patches=((_worker, "suspected", lambda _headers: False),),
        needs=lambda world: world.poisonous,
    ),
    "rule_15_suspects_beside_others": Mutant(
        "what is claimed with a message that kills carries the mark, and past the limit it is given up",
        ("G7", "liveness"), 1000, {"process": GivesUpWhatIsMarked},
        patches=((_memory, "_AGAIN", b"never there"),),
        needs=lambda world: world.poisonous,
    ),
    "rule_15_never_given_up": Mutant(
        "a message that kills has no last attempt", ("G7", "liveness"), 200, {"process": NeverGivesUp},
        needs=lambda world: world.poisonous,
    ),
    "rule_15_buried_before_told": Mutant(
        "a message goes to the dead letters before anybody is told", ("G7",), 200, {"process": BuriesBeforeItTells},
        needs=lambda world: world.poisonous,
    ),
    "rule_16_own_count_only": Mutant(
        "a node consumes as many shards as its own settings say", ("liveness", "handover"), 300,
        {"process": CountsItsOwnShards},
        needs=lambda world: world.sharding.on,
    ),
    "rule_16_count_read_once": Mutant(
        "the number of shards is read when the lease opens, and never again", ("liveness", "handover"), 2000,
        {"process": ReadsTheCountOnce},
        needs=lambda world: world.sharding.on,
    ),
    "rule_16_base_not_consumed": Mutant(
        "owners of shards do not consume the base queue", ("liveness",), 100, {"process": ConsumesShardsOnly},
        needs=lambda world: world.sharding.on,
    ),
    "rule_16_unacked_left": Mutant(
        "what dead plain workers held is not restored", ("liveness",), 300, {"process": LeavesUnacked},
        needs=lambda world: world.plain.beside,
    ),
    "uninstall_gives_nothing_back": Mutant(
        "celery_ha is taken out and what dead workers held is forgotten", ("G1", "G8"), 300,
        {"plain": GivesNothingBack},
        needs=lambda world: world.plain.taken_out,
    ),
    "uninstall_leaves_lines": Mutant(
        "celery_ha is taken out and what waits in line for a lock stays there", ("G8",), 1000,
        patches=((MemoryServer, "pour", _nothing(None)),),
        needs=lambda world: world.plain.taken_out,
    ),
    "rings_of_members_that_were": Mutant(
        "rings are written down though the members have changed since they were worked out", ("liveness", "handover"), 2000,
        patches=((MemoryCourt, "keep_rings", _keep_whatever),),
        needs=lambda world: world.sharding.on,
    ),
    "drain_keeps_its_shards": Mutant(
        "a node that leaves keeps its shards until it is gone", ("handover",), 1000, {"process": KeepsItsShards},
        needs=lambda world: world.sharding.on and world.gentle,
    ),
    "rule_17_redelivery_starts": Mutant(
        "what RabbitMQ delivers again starts, whatever became of the attempt before", ("G2",), 300,
        patches=((MemoryAttempts, "_now", _nothing(_Try())),),
        needs=lambda world: world.rabbit.on,
    ),
    "rule_18_one_by_one": Mutant(
        "several dead leases are requeued one after the other", ("order",), 1000,
        patches=((_observer, "recover", _one_by_one),),
    ),
    "rule_18_newest_to_the_front": Mutant(
        "requeued messages change their order", ("order",), 500,
        patches=((MemoryBroker, "requeue", _newest_to_the_front),),
    ),
    "rule_19_not_read": Mutant(
        "a worker does not read which tasks were revoked before it came", ("G6",), 300, {"process": ReadsNoRevocations},
        needs=lambda world: world.revoking.on,
    ),
}  # fmt: skip
