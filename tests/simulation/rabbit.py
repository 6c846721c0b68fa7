"""RabbitMQ in place of the broker: it keeps the messages itself, and delivers them again itself (rule 17).

As soon as a connection is closed, whatever was not acknowledged over it is back in its queue, although bodies may
run on under the same lease. The product's own broker for it and its record of attempts decide what becomes of that.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from celery_ha.attempts.memory import AttemptsServer, MemoryAttempts
from celery_ha.brokers.amqp import AmqpBroker
from celery_ha.brokers.unacked import OWN_ID, Delivery, Unacked
from celery_ha.model import Batch, Claim, Ending, Settlement
from celery_ha.store.memory import MemoryStore
from tests.simulation.faults import CHAOS, Plan, draw_timed

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How many seeds have a RabbitMQ.
RABBIT = 0.12
#: Seconds after which RabbitMQ closes the connection of a client that it does not hear.
HEARTBEAT = 6.0


@dataclass
class Channel:
    """What a delivery came over."""

    is_open: bool = True
    attended: bool = True


@dataclass
class Rabbit:
    """The RabbitMQ of one seed."""

    world: World
    on: bool = field(init=False)
    attempts: AttemptsServer = field(default_factory=AttemptsServer)
    #: The connection of each lease.
    channels: dict[str, Channel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.world.seed}-rabbit")
        self.on = self._rng.random() < RABBIT

    def plan(self, drawn: Plan) -> Plan:
        """The faults of a seed: connections that are closed while bodies run are what this is about."""
        return (
            drawn.with_more(draw_timed(self._rng, CHAOS, ("drop",), self._rng.choice([0, 2, 4]))) if self.on else drawn
        )

    def connect(self, lease: str) -> Channel:
        if self.world.ledger.processes[lease].wedged:  # its call was under way; heartbeats are sent by the loop
            self.world.after(HEARTBEAT, self.cut, lease)
        return self.channels.setdefault(lease, Channel())

    def cut(self, lease: str) -> None:
        """A connection is closed: what it had not acknowledged is back, in its old order."""
        channel = self.channels.pop(lease, None)
        if channel is None:
            return
        self.world.trace("connection closed", lease)
        channel.is_open = False
        broker = self.world.broker
        for claim in reversed(tuple(broker.flights[lease].values())):
            broker.queue(claim.source).appendleft(claim.payload)
        broker.flights[lease].clear()

    def fence(self, lease: str) -> None:
        self.world.broker.shut(lease)
        self.cut(lease)


class RabbitBroker(AmqpBroker):
    """The product's broker of a worker, with what its transport does on RabbitMQ.

    Args:
        rabbit: the server.
        store: where attempts are written down.
    """

    def __init__(self, rabbit: Rabbit, store: MemoryStore) -> None:
        super().__init__(MemoryAttempts(store, rabbit.attempts), Unacked(), cut_off=rabbit.fence)
        self._rabbit = rabbit
        #: Leases that RabbitMQ has given up the connection of, by what came here; to be told.
        self.doubted: set[str] = set()
        self._server = rabbit.world.broker
        self._record = rabbit.world.ledger.message

    def join(self, lease: str) -> bool:
        self._server.open.add(lease)
        self._server.flights.setdefault(lease, {})
        return super().join(lease)

    def claim(
        self, lease: str, queues: Sequence[str], *, limit: int, slots: int, settle: Sequence[Settlement] = ()
    ) -> Batch:
        """What came since the last turn; none of it is marked."""
        channel = self._rabbit.connect(lease)
        self.unacked.forget_dead()
        if settle and not self.settle(lease, settle):
            return Batch(open=False)
        waiting = [delivery for claim in tuple(self.unacked.aside) if (delivery := self.unacked.get(claim))]
        found = [claim for delivery in waiting if (claim := self._offer(lease, delivery))]
        for source in (source for queue in queues for source in self._server.sources(queue)):
            while self._server.queues.get(source) and len(found) < limit:
                claim = self._server.pop(lease, source, started=False)
                delivery = self._delivery(claim, channel)
                self.unacked.add(delivery)
                found += filter(None, [self._offer(lease, delivery)])
        self._flush(lease)
        return Batch(tuple(found))

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        done = super().start(lease, claim, settle=settle)
        if done:
            self._note(settle)
        flight = self._server.flights[lease]
        if done and claim in flight:
            flight[claim] = replace(flight[claim], started=True)
        self._flush(lease)
        return done

    def settle(self, lease: str, settle: Sequence[Settlement]) -> bool:
        done = super().settle(lease, settle)
        if done:
            self._note(settle)
        self._flush(lease)
        return done

    def widest(self, queue: str, shards: int) -> int:
        found = self._server.shards[queue] = max(shards, self._server.shards.get(queue, 0))
        return found

    def _note(self, settle: Sequence[Settlement]) -> None:
        """An attempt that was given back is over, whether RabbitMQ can still be told or not."""
        given_back = {item.claim for item in settle if item.ending is Ending.RELEASE}
        self._rabbit.world.ledger.let_go.update(given_back)

    def _offer(self, lease: str, delivery: Delivery) -> Claim | None:
        """As the transport does: to Celery, aside until an earlier attempt is over, or acknowledged at once."""
        earlier = self.earlier(delivery)
        if earlier.running:
            if delivery.claim not in self.unacked.aside:  # told once
                self.doubted.add(earlier.lease)
            self.unacked.aside[delivery.claim] = None
            return None
        self.unacked.aside.pop(delivery.claim, None)
        if earlier.ended:
            self.unacked.settled.append(Settlement(delivery.claim, Ending.ACK))
            return None
        return self._server.flights[lease][delivery.claim]

    def _flush(self, lease: str) -> None:
        """Tell RabbitMQ what was settled; what goes back goes back as it came."""
        while self.unacked.settled:
            item = self.unacked.settled.popleft()
            delivery = None if item.ending is Ending.DEFER else self.unacked.pop(item.claim)
            if delivery is not None and delivery.alive:
                self._server.end(lease, Settlement(item.claim, item.ending))

    def _delivery(self, claim: Claim, channel: Channel) -> Delivery:
        message = self._record(claim.payload)
        properties = {"application_headers": {"id": message.task}, "message_id": f"{OWN_ID}{message.number}"}
        found = SimpleNamespace(properties=properties, delivery_info={})
        return Delivery(claim.id, found, 0, channel, claim.source, deliver=lambda _message: None)


class ChildOfRabbit:
    """What a body asks before it writes.

    Args:
        rabbit: the server.
        store: where attempts are written down.
    """

    def __init__(self, rabbit: Rabbit, store: MemoryStore) -> None:
        self._attempts = MemoryAttempts(store, rabbit.attempts)

    def start(self, lease: str, claim: str, *, settle: Iterable[Settlement] = ()) -> bool:
        return self._attempts.holds(lease, claim)
