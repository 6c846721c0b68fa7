"""What really happened, and the guarantees checked against it.

The servers here are the product's memory servers, with every effect reported to a :class:`Ledger`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_ha.brokers.memory import MemoryBrokerServer
from celery_ha.model import Claim, Ending, Grant, Holder, Parked, Settlement
from celery_ha.store.memory import MemoryServer

if TYPE_CHECKING:
    from tests.simulation.worker import Process

#: Seconds a lock stays in trust here.
INHERIT = 20.0
#: Attempts that a message has.
MAX_DELIVERIES = 3


class Violation(AssertionError):
    """A guarantee was broken."""


@dataclass(frozen=True)
class Message:
    """What a simulated message says."""

    number: int
    task: str
    duration: float
    lock: str | None
    #: Whoever opens it is gone.
    deadly: bool = False
    #: Whatever runs it is gone: the child, or with threads the worker.
    fatal: bool = False

    def payload(self) -> bytes:
        return json.dumps({
            "body": json.dumps([self.number, self.duration, self.lock, self.deadly, self.fatal]),
            "headers": {"id": self.task, "eta": None},
            "properties": {"delivery_info": {}, "priority": 0},
        }).encode()  # fmt: skip

    @classmethod
    def read(cls, payload: bytes) -> Message:
        envelope = json.loads(payload)
        number, duration, lock, deadly, fatal = json.loads(envelope["body"])
        return cls(number, envelope["headers"]["id"], duration, lock, deadly, fatal)


@dataclass
class Ledger:
    """Everything the guarantees speak of."""

    now: Callable[[], float]
    trace: Callable[..., None]
    processes: dict[str, Process] = field(default_factory=dict)
    #: Message numbers whose publish returned, and those whose claim was acknowledged.
    accepted: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    #: How often a body of each message began to run, and the numbers of those of which one ran to its end.
    runs: Counter[int] = field(default_factory=Counter)
    finished: set[int] = field(default_factory=set)
    #: Claim ids ever marked started, ever launched, ever checked by their body before a write.
    marked: set[str] = field(default_factory=set)
    #: How often each message's attempt was marked started.
    starts: Counter[int] = field(default_factory=Counter)
    #: The broker delivers again what an open lease still runs.
    redelivers: bool = False
    #: The attempt at each message that was the last to start.
    _latest: dict[int, Claim] = field(default_factory=dict)
    #: What is held by others than ours.
    elsewhere: Callable[[], list[bytes]] = list
    #: Tasks that were revoked.
    revoked: Container[str] = ()
    #: Message numbers that somebody opened, to run them or to die of it.
    opened: set[int] = field(default_factory=set)
    #: Message numbers of which everybody was told that they are given up.
    told: set[int] = field(default_factory=set)
    launched: set[str] = field(default_factory=set)
    checked: set[str] = field(default_factory=set)
    fences: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    terms: int = 0
    #: Who was granted each lock last and has not been released, ended or settled as finished.
    owners: dict[str, tuple[Holder, float]] = field(default_factory=dict)
    fence_times: list[tuple[float, str, str]] = field(default_factory=list)
    #: Claims moved by recoveries since the caller last looked here.
    moving: list[Claim] = field(default_factory=list)
    #: Claims given back by their own lease.
    let_go: set[str] = field(default_factory=set)
    #: Whether the store says that a lease is open, and whether it ever lost its memory.
    is_open: Callable[[str], bool] = lambda lease: False
    wiped: bool = False
    _claimed: dict[str, int] = field(default_factory=dict)
    _read: dict[bytes, Message] = field(default_factory=dict)

    def message(self, payload: bytes) -> Message:
        found = self._read.get(payload)
        if found is None:
            found = self._read[payload] = Message.read(payload)
        return found

    # G1: a message is in exactly one place until its ack, and the ack comes from a body that ended.

    def check_places(self, broker: MemoryBrokerServer, store: MemoryServer) -> None:
        seen: set[int] = set()
        places = [payload for queue in broker.queues.values() for payload in queue]
        places += [claim.payload for flight in broker.flights.values() for claim in flight.values()]
        lines = store.memory.lines.values()
        places += [waiter.payload for line in lines for waiter in line.waiters if waiter.wake is not None]
        places += self.elsewhere()
        for payload in places:
            number = self.message(payload).number
            if number in seen or number in self.acked:
                raise Violation(f"G1: message {number} is in two places")
            seen.add(number)
        lost = self.accepted - seen - self.acked
        if lost:
            raise Violation(f"G1: messages {sorted(lost)} are nowhere")

    def ended(self, claim: Claim, settlement: Settlement) -> None:
        number = self.message(claim.payload).number
        if settlement.ending is Ending.ACK:
            if number not in self.finished and self.message(claim.payload).task not in self.revoked:
                raise Violation(f"G1: message {number} was acknowledged and never ran")
            self.acked.add(number)
        elif settlement.ending is Ending.DEAD:
            # G7: what is given up had all its attempts, and who waits for it knows.
            if self.starts[number] < MAX_DELIVERIES:
                raise Violation(f"G7: message {number} was given up after {self.starts[number]} attempts")
            if number not in self.opened:
                raise Violation(f"G7: message {number} was given up and nobody ever opened it")
            if number not in self.told:
                raise Violation(f"G7: message {number} was given up and nobody was told")
            self.acked.add(number)
        elif settlement.ending is Ending.RELEASE:
            self.let_go.add(claim.id)

    # G2: no start without the mark, no mark after the fence, no second run of what was not marked.

    def launch(self, claim: Claim, process: Process, broker: MemoryBrokerServer) -> None:
        record = broker.flights.get(claim.lease, {}).get(claim.id)
        shut = claim.lease in broker.fenced
        self.trace("launch", claim.id, self.message(claim.payload).number)
        if claim.id in self.launched:
            raise Violation(f"G2: claim {claim.id} runs twice")
        if claim.id not in self.marked:
            raise Violation(f"G2: claim {claim.id} runs without the mark")
        if not (shut or self.redelivers) and (record is None or not record.started):
            raise Violation(f"G2: claim {claim.id} runs and is not in flight as started")
        if shut and not process.troubled("suspend", "drop"):
            raise Violation(
                f"G2: claim {claim.id} starts after the fence of its lease ({self.fences.get(claim.lease)})"
            )
        self.launched.add(claim.id)
        message = self.message(claim.payload)
        self._check_alone(claim, message.number)
        self.runs[message.number] += 1
        if message.fatal and self.runs[message.number] > MAX_DELIVERIES:
            raise Violation(f"G7: message {message.number} kills and ran {self.runs[message.number]} times")

    def _check_alone(self, claim: Claim, number: int) -> None:
        """No message runs while another attempt at it does, under a lease that is open, nor after its end."""
        if number in self.acked:
            raise Violation(f"G2: message {number} runs as {claim.id} after it has come to its end")
        before = self._latest.get(number, claim)
        self._latest[number] = claim
        process = self.processes[before.lease]
        over = before.id in self.let_go or before.lease in self.fences
        body = None if over else process.children.get(before.id)
        if body is not None and not (body.dead or process.dead) and self.is_open(before.lease):
            raise Violation(f"G2: message {number} runs twice at once, as {before.id} and {claim.id}")

    def put_back(self, claim: Claim) -> None:
        if claim.id in self.launched and not claim.started:
            raise Violation(f"G2: claim {claim.id} ran and counts as not started")

    def marks(self, claim: Claim, broker: MemoryBrokerServer) -> None:
        if claim.lease in broker.fenced:
            raise Violation(f"G2: {claim.lease} started {claim.id} after its fence")
        if claim.id not in self.marked:
            self.marked.add(claim.id)
            self.starts[self.message(claim.payload).number] += 1

    def started(self, claim_id: str, broker: MemoryBrokerServer) -> None:
        """The broker says that this attempt may run, or may write what it did."""
        claim = broker.flights[claim_id.rpartition(".")[0]].get(claim_id)
        self.checked.add(claim_id)
        if claim is not None:
            self.marks(claim, broker)
        elif self.redelivers:  # its message is back in its queue
            self.marked.add(claim_id)

    # G2, second half: a late result of a fenced lease changes nothing.

    def result(self, claim: Claim, number: int, broker: MemoryBrokerServer) -> None:
        moved = claim.lease in broker.fenced or claim.id not in broker.flights.get(claim.lease, {})
        if moved and claim.id not in self.checked:
            raise Violation(f"G2: a result of {claim.id} came after its fence and was not checked")
        self.finished.add(number)

    # G3: one holder, tokens grow, nobody overtakes an interrupted task.

    def granted(self, name: str, holder: Holder, grant: Grant, store: MemoryServer, broker: MemoryBrokerServer) -> None:
        if grant.token is None or grant.again:
            return
        self.trace("lock", name, holder, grant.token)
        if grant.token <= self.tokens.get(name, 0):
            raise Violation(f"G3: token of {name} fell from {self.tokens[name]} to {grant.token}")
        self.tokens[name] = grant.token
        before, at = self.owners.get(name, (None, 0.0))
        self.owners[name] = (holder, self.now())
        if before is None or before.claim == holder.claim:
            return
        if before.claim in broker.flights.get(before.lease, {}) and store.is_open(before.lease):
            raise Violation(f"G3: {name} has two holders, {before} and {holder}")
        over = self._claimed.get(before.claim) in self.acked or before.claim in self.let_go
        if before.task != holder.task and not over and self.now() - at < INHERIT - 5:
            raise Violation(f"G3: {holder} overtook the interrupted {before} on {name}")

    def check_lease(
        self, name: str, holder: Holder, grant: Grant, store: MemoryServer, broker: MemoryBrokerServer
    ) -> None:
        """At the moment of the grant; the answer may be on its way for longer."""
        lease = holder.claim.rpartition(".")[0]
        if grant.token and not grant.again and (lease in store.memory.fenced or lease in broker.fenced):
            raise Violation(f"G3: {name} granted to {holder.claim} of a fenced lease")

    def claimed(self, claim: Claim) -> None:
        self._claimed[claim.id] = self.message(claim.payload).number

    def check_locks(self, store: MemoryServer, broker: MemoryBrokerServer) -> None:
        """Once everything is done: a lock whose claim ended is free, or in trust until that runs out."""
        for (name, _), lock in store.memory.locks.items():
            holder = lock.holder
            if (
                lock.until is None
                and store.is_open(holder.lease)
                and not broker.flights[holder.lease].get(holder.claim)
            ):
                raise Violation(f"G3: {name} is held for good by the ended {holder}")

    def parked(self, claim: str) -> None:
        """The message of a claim waits in line."""
        self.let_go.add(claim)
        self.freed({claim})

    def freed(self, claims: set[str]) -> None:
        for name in [name for name, (holder, _) in self.owners.items() if holder.claim in claims]:
            del self.owners[name]

    def released(self, name: str, holder: Holder) -> None:
        if name in self.owners and self.owners[name][0] == holder:
            del self.owners[name]

    # G5: no false deaths.

    def fenced(self, lease: str, reason: str) -> None:
        self.trace("fenced", lease, reason)
        if lease in self.fences:  # whoever fences it again finds a lease that is over
            return
        self.fences[lease] = reason
        process = self.processes.get(lease)
        if process is not None and not reason.startswith("closed") and not process.excused(lease):
            raise Violation(f"G5: {lease} was healthy and was fenced: {reason}")

    def failed_over(self) -> None:
        """The store forgot its last writes: what it said of terms, and that it kept locks for interrupted tasks."""
        self.terms = 0
        self.owners = {name: (holder, float("-inf")) for name, (holder, _) in self.owners.items()}

    def shut_stranger(self, lease: str) -> None:
        """The broker fences a lease that the store did not fence; a wipe forgets that it refuses it."""
        if self.is_open(lease) and not self.wiped:
            raise Violation(f"G5: {lease} is open in the store and was fenced as a stranger")
        self.fenced(lease, "stranger")

    # Rule 18: order.

    def check_order(self, claims: list[Claim], broker: MemoryBrokerServer) -> None:
        number_of = {self.message(claim.payload).number: claim.number for claim in claims}
        for source, queue in broker.queues.items():
            found = [number_of[n] for n in (self.message(p).number for p in queue) if n in number_of]
            if found != sorted(found):
                raise Violation(f"order: {source} has claims in the order {found}")


class TrackedBroker(MemoryBrokerServer):
    """A memory broker that reports its effects."""

    def __init__(self, now: Callable[[], float], ledger: Ledger) -> None:
        super().__init__(now)
        self.ledger = ledger

    def pop(self, lease: str, source: str, *, started: bool) -> Claim:
        claim = super().pop(lease, source, started=started)
        self.ledger.claimed(claim)
        if claim.started:
            self.ledger.marks(claim, self)
        return claim

    def end(self, lease: str, settlement: Settlement) -> bool:
        claim = self.flights[lease].get(settlement.claim)
        done = super().end(lease, settlement)
        if done and claim is not None:
            self.ledger.ended(claim, settlement)
        return done

    def put_back(self, claim: Claim, payload: bytes) -> bool:
        record = self.flights.get(claim.lease, {}).get(claim.id)
        done = super().put_back(claim, payload)
        if done and record is not None:
            self.ledger.moving.append(record)
            self.ledger.put_back(record)
        return done

    def shut(self, lease: str) -> None:
        known = lease in self.fenced
        super().shut(lease)
        if not known and self.ledger.fences.get(lease, "stranger") == "stranger":
            self.ledger.shut_stranger(lease)


class TrackedStore(MemoryServer):
    """A memory store that reports its fences."""

    def __init__(self, now: Callable[[], float], ledger: Ledger) -> None:
        super().__init__(now)
        self.ledger = ledger
        #: Called when membership has changed.
        self.on_members: Callable[[], None] = lambda: None

    def members_changed(self) -> None:
        super().members_changed()
        self.on_members()

    def fence_member(self, lease: str, term: int, reason: str) -> None:
        super().fence_member(lease, term, reason)
        self.ledger.fenced(lease, reason)

    def wipe(self) -> None:
        """Lose the store's memory; what waits in line is the broker's, which loses none here."""
        lines = self.memory.lines
        super().wipe()
        self.memory.lines = lines


def effect(ledger: Ledger, name: str, args: tuple[Any, ...], result: Any, world: Any) -> None:
    """Report the effect of one port call."""
    if name == "start" and result:
        ledger.started(args[1], world.broker)
    elif name == "acquire":
        ledger.granted(args[0], args[1], result, world.store, world.broker)
    elif name == "release" and result:
        ledger.released(args[0], args[1])
    elif name == "refuse" and result:
        if args[2] not in ledger.fences:
            ledger.fenced(args[2], "stranger")
    elif name == "park" and result is Parked.PARKED:
        ledger.parked(args[1].claim)
    elif name == "ended":
        ledger.freed(set(args[0]))
    elif name in ("elect", "depose") and result is not None:
        if result < ledger.terms:
            raise Violation(f"rule 12: term fell from {ledger.terms} to {result}")
        ledger.terms = result
