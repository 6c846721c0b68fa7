"""One simulated cluster and its history: servers, workers, producers, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from celery_ha.brokers.memory import MemoryBroker
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Ending
from tests.simulation.child import Child
from tests.simulation.faults import CHAOS, Plan, draw_apart
from tests.simulation.kernel import Kernel, Owner
from tests.simulation.ledger import Ledger, Message, TrackedBroker, TrackedStore, Violation, effect
from tests.simulation.network import SOCKET_TIMEOUT, Caller, Wire
from tests.simulation.plain import Plain
from tests.simulation.rabbit import HEARTBEAT, Rabbit
from tests.simulation.replica import LAG, Replica
from tests.simulation.revoking import Revoking
from tests.simulation.shards import KILLED, SETTLE, Sharding
from tests.simulation.worker import TTL, Process

#: Simulated seconds within which everything must be done after the last fault.
CALM = 200.0
LOCKS = ("red", "blue")
#: Seconds within which the messages of a killed process have moved (G4).
PROMISE = 2.0
#: How many seeds have messages that kill, and how many of their messages kill whoever opens or whatever runs them.
POISONOUS, DEADLY, FATAL = 0.1, 0.2, 0.15
#: How many locked messages hold their lock for longer than a new master grants none, where the store has a replica.
HELD_LONG = 0.3
#: How many masters are gone just after they have granted or fenced something.
TRAPPED = 0.6
#: Seconds until a worker that was poisoned is there again.
REBORN = 0.5


class Producer(Caller):
    """Publishes messages, each until it is told that it was accepted (rule 14)."""

    def __init__(self, world: World, name: str, messages: int) -> None:
        super().__init__(world, name)
        self.broker = Wire(self, MemoryBroker(world.broker), None)
        self.shards = world.sharding.setting()
        self.messages = messages
        self.done = False
        world.kernel.spawn(self, self._run)

    def _run(self) -> None:
        world, rng = self.world, self.world.rng
        for n in range(self.messages):
            message = world.new_message()
            world.ledger.published.add(message.number)
            priority = rng.choice([0, 0, 0, 3, 9])
            queue = world.sharding.publish_to(self.shards, message.task)
            while True:
                try:
                    self.broker.publish(queue, message.payload(), priority=priority, publish_id=self.publish_id(n))
                    break
                except StoreUnavailable:
                    world.kernel.sleep(0.3)
            world.ledger.accepted.add(message.number)
            world.revoking.published(message)
            # What comes right after a message that kills is claimed with it, again and again.
            world.kernel.sleep(0.0 if message.deadly else rng.uniform(0.0, 1.2))
        self.done = True

    def publish_id(self, n: int) -> str | None:
        return f"{self.name}.{n}"


class World:
    """Everything of one seed.

    Args:
        seed: draws everything.
        process: the class of worker processes; mutants pass their own.
        producer: the class of producers.
        out: receives trace lines; None: no trace.
    """

    def __init__(
        self,
        seed: int,
        *,
        process: type[Process] = Process,
        producer: type[Producer] = Producer,
        store: type[TrackedStore] = TrackedStore,
        broker: type[TrackedBroker] = TrackedBroker,
        replica: type[Replica] = Replica,
        plain: type[Plain] = Plain,
        out: Any = None,
    ) -> None:
        self.seed = seed
        self.out = out
        self.rng = random.Random(seed)
        self.kernel = Kernel()
        self.me = Owner()
        self.wall = 1_000_000.0
        self.stalled_until = 0.0
        self.slow_until = 0.0
        self.outage_until = 0.0
        self.buffered = frozenset({
            "claim", "start", "settle", "publish", "fence", "requeue", "finish_round", "elect", "join", "ended",
            "acquire", "refuse", "keep_rings",
        })  # fmt: skip
        self.ledger = Ledger(lambda: self.kernel.now, self.trace)
        self.store = store(lambda: self.kernel.now + self.wall, self.ledger)
        self.ledger.is_open = self.store.is_open
        self.broker = broker(lambda: self.kernel.now + self.wall, self.ledger)
        self.sharding = Sharding(self)
        self.rabbit = Rabbit(self)
        self.ledger.redelivers = self.rabbit.on
        if self.rabbit.on:
            self.buffered -= {"claim"}  # it delivers to nobody who is not connected
        self.plain = plain(self)
        self.plan = self.rabbit.plan(self.sharding.plan(Plan.draw(self.rng, CHAOS)))
        self.calm = False
        self.process = process
        #: Times that G4 was put to the test.
        self.promises = 0
        # Of its own, so that a seed without poison is the history it would be without this.
        self._poison = random.Random(f"{seed}-poison")
        self.poisonous = self._poison.random() < POISONOUS and not (
            self.plain.beside or self.plain.taken_out or self.rabbit.on
        )
        self.ledger.elsewhere = lambda: [item.payload for item in self.plain.unacked.values()]
        self.store.on_members = self._ring
        self.revoking = Revoking(self)
        self.ledger.revoked = self.revoking.tasks
        self._late_open = False
        self._numbers = 0
        self._last: Message | None = None
        self._incarnations = 0
        self.workers = [self.new_worker(f"w{n + 1}") for n in range(self.rng.choice([2, 3, 3, 4]))]
        #: Whether store and broker are one server, so that messages wait in line for their locks.
        self.parks = self.rng.random() < 0.7 and not self.rabbit.on
        self._apart = random.Random(f"{seed}-apart")
        #: Faults of the store or the broker alone, until when each is stalled or away (store, broker), and the
        #: store's replica.
        self.apart = () if self.parks or self.rabbit.on else draw_apart(self._apart, CHAOS)
        self.stalled, self.away = [0.0, 0.0], [0.0, 0.0]
        #: Until then a server may be stalled or away; later nobody has to look which one.
        self.disturbed_until = 0.0
        self.replica = None
        if any(kind == "failover" for _, kind in self.apart):
            self.replica = replica(self.store, self._apart)
        self.gentle = self.plan.gentle and not self.apart
        self.producers = [producer(self, f"p{n + 1}", self.rng.randint(4, 9)) for n in range(2)]

    # Making things.

    def new_worker(self, name: str) -> Process:
        self._incarnations += 1
        return self.process(self, name, self._incarnations)

    def new_message(self) -> Message:
        self._numbers += 1
        rng = self.rng
        if self._last is not None and rng.random() < 0.08:
            return replace(self._last, number=self._numbers)  # a doubled chain step
        duration = rng.choice([0.0, 0.1, 0.1, 0.5, 0.5, 1.0, 3.0, 7.0])
        lock = rng.choice(LOCKS) if rng.random() < 0.4 else None
        if lock is not None and self.replica is not None and self._apart.random() < HELD_LONG:
            duration = 3 * TTL
        if self.plain.beside:
            lock = None  # nobody else's worker asks for it
        deadly = self.poisonous and self._poison.random() < DEADLY
        fatal = self.poisonous and not deadly and self._poison.random() < FATAL
        self._last = Message(self._numbers, f"t{self._numbers}", duration, lock, deadly, fatal)
        return self._last

    def poison(self, process: Process) -> None:
        """A worker has opened what nobody survives."""
        self.trace("poisoned", process.lease)
        process.crash(disconnect=True)
        self.after(REBORN, self._restart_worker, process.name)
        self.kernel.exit()

    def kill(self, child: Child) -> None:
        """A body has taken down what runs it."""
        if self._kill_child(child):
            self.kernel.exit()
        self.poison(child.process)

    def tell(self, message: Message) -> None:
        """Everybody who waits for a message learns that it is given up."""
        self.kernel.sleep(self._poison.uniform(0.0, 0.3))
        self.ledger.told.add(message.number)

    # Running.

    def run(self) -> None:
        """Run the seed to its end.

        Raises:
            Violation: a guarantee was broken.
        """
        try:
            self._run()
        finally:
            self.kernel.close()

    def _run(self) -> None:
        self.kernel.spawn(self.me, self._chaos)
        self.kernel.spawn(self.me, self._check)
        self.revoking.start()
        self.plain.start()
        if self.replica is not None:
            self.kernel.spawn(self.me, self._replicate, self.replica)
        self.kernel.run(CHAOS + 0.5)
        self._heal()
        if self.plain.taken_out:
            self.plain.take_out()
        self.kernel.run(CHAOS + CALM, stop=self.drained)
        if not self.drained():
            left = sorted(self.ledger.published - self.ledger.acked)
            raise Violation(f"liveness: messages {left} were not done {CALM:.0f} s after the last fault")
        self.ledger.check_places(self.broker, self.store)
        if self.plain.taken_out:
            return
        self.kernel.run(self.kernel.now + 3.0)
        self.ledger.check_locks(self.store, self.broker)
        self.kernel.run(self.kernel.now + SETTLE, stop=self.sharding.settled)
        self.sharding.check_settled()

    def has(self, kind: str) -> bool:
        """Whether this seed has a fault of a kind."""
        return any(kind == planned for _, planned in self.plan.timed)

    def drained(self) -> bool:
        return all(producer.done for producer in self.producers) and self.ledger.accepted == self.ledger.acked

    def trace(self, *what: Any) -> None:
        if self.out is not None:
            self.out(f"{self.kernel.now:8.3f}  " + " ".join(map(str, what)))

    def _check(self) -> None:
        while True:
            self.ledger.check_places(self.broker, self.store)
            self.kernel.sleep(0.5)

    def _replicate(self, replica: Replica) -> None:
        while True:
            self.kernel.sleep(self._apart.uniform(0.0, LAG))
            replica.catch_up()

    def _heal(self) -> None:
        self.trace("calm")
        self.calm = True
        for worker in self.workers if self.sharding.on else ():
            worker.stuck_observer = False  # it judges nobody, but hears who there is
        if not any(self._sound(worker) for worker in self.workers):
            self.workers.append(self.new_worker("w9"))

    @staticmethod
    def _sound(worker: Process) -> bool:
        return not (worker.dead or worker.leaving or worker.wedged or worker.stuck_observer)

    # What goes wrong at a call.

    def call_fault(self, caller: Caller, when: str, name: str) -> bool:
        """Maybe let something go wrong before or after the effect of a call; True: its reply is lost."""
        plan, rng = self.plan, self.rng
        if not self.calm and when == "after" and isinstance(caller, Process):
            self._dawdle(caller, name)
        if self.calm or rng.random() >= plan.call_rate:
            return False
        kind = rng.choices(plan.call_kinds, plan.call_weights)[0]
        if kind == "lost_reply":
            if when == "after" and isinstance(caller, Process):
                caller.troubles.append(("drop", self.kernel.now, self.kernel.now))
            return when == "after"
        if not kind.endswith(when):
            return False
        if kind.startswith("slow"):
            self.kernel.sleep(rng.uniform(0.0, 0.1))
            return False
        if isinstance(caller, Process):
            self._strike(caller, kind, name)
        elif isinstance(caller, Child) and self._kill_child(caller):
            self.kernel.exit()
        return False

    def _dawdle(self, process: Process, name: str) -> None:
        """Let a newcomer stand still after its join, until it is a stranger, and the leader after refusing it."""
        if name == "join" and process.dawdles:
            process.dawdles = False
            self._stand(process, self.rng.uniform(TTL, 3 * TTL), name)
        elif name == "refuse" and self._late_open:
            self._stand(process, self.rng.choice([0.0, 1.0, TTL]), name)

    def _stand(self, process: Process, seconds: float, name: str) -> None:
        self.trace("stands still", process.lease, name, seconds)
        self.freeze(process, seconds)
        self.kernel.sleep(0.0)

    def _strike(self, process: Process, kind: str, name: str) -> None:
        if kind.startswith("crash"):
            self.trace(kind, process.lease, name)
            self._crash(process, disconnect=self.rng.random() < 0.7)
            self.kernel.exit()
        self._stand(process, self.rng.choice([0.3, 1.0, TTL, 2.5 * TTL]), name)

    def later(self, at: float, name: str, method: Any, args: Any, kwargs: Any) -> None:
        """A request that waits in the server's socket buffer happens although its caller gave up.

        Not its deferrals: one that arrives after a later start of the same claim takes the mark from an attempt that
        runs, and nothing in the protocol tells the two apart (``docs/architecture.md``, what is known to be open).
        """
        owed = kwargs.get("settle", ())
        kwargs = (
            {**kwargs, "settle": tuple(item for item in owed if item.ending is not Ending.DEFER)} if owed else kwargs
        )

        def happen() -> None:
            self.kernel.sleep(at - self.kernel.now + self.rng.uniform(0.0, self.rng.choice([0.1, 2.0])))
            while self.stalled_until > self.kernel.now:
                self.kernel.sleep(self.stalled_until - self.kernel.now)
            self.trace("happens late:", name, args[:2])
            effect(self.ledger, name, args, method(*args, **kwargs), self)

        self.kernel.spawn(self.me, happen)

    # What goes wrong at a time.

    def _chaos(self) -> None:
        for at, kind in sorted(self.plan.timed + self.apart):
            self.kernel.sleep(at - self.kernel.now)
            alive = [worker for worker in self.workers if not worker.dead]
            self.trace("fault", kind)
            getattr(self, f"_do_{kind}")(self._victim(alive) if alive else None)
            self._disturb()

    def _disturb(self) -> None:
        self.disturbed_until = max(self.stalled_until, self.outage_until, *self.stalled, *self.away)

    def _victim(self, alive: list[Process]) -> Process:
        """Often the leader."""
        leader = self.store.memory.leader
        if leader is not None and self.rng.random() < 0.4:
            for worker in alive:
                if worker.lease == leader.lease:
                    return worker
        return self.rng.choice(alive)

    def after(self, delay: float, run: Any, *args: Any) -> None:
        """Let something happen a little later."""

        def wait() -> None:
            self.kernel.sleep(delay)
            run(*args)

        self.kernel.spawn(self.me, wait)

    def freeze(self, process: Process, seconds: float, *, host: bool = False) -> None:
        now = self.kernel.now
        process.troubles.append(("suspend" if host else "pause", now, now + seconds))
        process.standing.append(process)
        if host or process.threads_pool:
            process.standing += process.children.values()
        for owner in process.standing:
            owner.frozen = True
        if self.rabbit.on and seconds > HEARTBEAT:
            self.after(HEARTBEAT, self.rabbit.cut, process.lease)

        def thaw() -> None:
            if host:
                process.offset -= seconds
            if any(to > self.kernel.now for kind, _, to in process.troubles if kind in ("suspend", "pause")):
                return
            standing, process.standing = process.standing, []
            for owner in standing:
                self.kernel.thaw(owner)

        self.after(seconds, thaw)

    def _crash(self, process: Process, *, disconnect: bool) -> None:
        process.crash(disconnect=disconnect)
        if disconnect and self.gentle:
            self.after(PROMISE, self._expect_moved, process.lease)
            self.sharding.expect_handed_over(process, KILLED)
        if self.rng.random() < 0.6:
            self.after(self.rng.uniform(0.2, 3.0), self._restart_worker, process.name)

    def _expect_moved(self, lease: str) -> None:
        """G4: a killed process is given up within two seconds by whoever has watched for long enough."""
        if not self.seasoned(PROMISE):
            return
        self.promises += 1
        left = self.broker.flights.get(lease)
        if left:
            raise Violation(f"G4: {PROMISE} s after the death of {lease} it still holds {sorted(left)}")

    def seasoned(self, promise: float) -> bool:
        """Whether somebody has watched for long enough to see what happened then."""
        long_ago = self.kernel.now - promise - TTL - 1.0
        return any(self._sound(worker) and worker.born < long_ago for worker in self.workers)

    def _ring(self) -> None:
        """Membership has changed: observers that wait for that look again (rule 10)."""
        if self.sharding.on:
            for worker in self.workers:
                if worker.opened:
                    worker.observer_thread.wake()

    def _restart_worker(self, name: str) -> None:
        self.workers.append(self.new_worker(name))

    def _kill_child(self, child: Child) -> bool:
        """Kill a child, if it is a process."""
        if child.process.threads_pool:
            return False
        child.dead = True
        self.trace("child dies", child.claim.id)
        self.after(0.1, self._reap, child)
        return True

    def _reap(self, child: Child) -> None:
        if not child.process.dead:
            child.process.child_done(child, "killed")

    def _do_kill(self, process: Process | None) -> None:
        if process:
            self._crash(process, disconnect=True)

    def _do_power(self, process: Process | None) -> None:
        if process:
            self._crash(process, disconnect=False)

    def _do_pause(self, process: Process | None) -> None:
        if process:
            self.freeze(process, self.rng.choice([0.5, 1.5, TTL, 2 * TTL, 3 * TTL]))

    def _do_suspend(self, process: Process | None) -> None:
        if process:
            self.freeze(process, self.rng.choice([TTL, 2 * TTL, 3 * TTL]), host=True)

    def _do_drop(self, process: Process | None) -> None:
        """All connections of a process are closed, by a proxy perhaps; it notices and may reconnect soon or late."""
        if process:
            lasts = self.rng.choice([0.0, 0.0, 0.05, 1.0, TTL])
            now = self.kernel.now
            process.troubles.append(("drop", now, now + lasts))
            process.cut_until = now + lasts
            self.rabbit.cut(process.lease)
            process.lease_store.disconnect()
            process.court_store.disconnect()
            self.after(self.rng.uniform(0.0, 0.05), process.connection_dropped)

    def _do_blackhole(self, process: Process | None) -> None:
        """Nothing of a process arrives; nobody is told."""
        if process:
            lasts = self.rng.choice([0.5, 2.0, 2 * TTL])
            now = self.kernel.now
            process.troubles.append(("blackhole", now, now + lasts))
            process.cut_until = now + lasts

    def _do_stall(self, process: Process | None) -> None:
        """The servers stand still, now and then with a process that shares their host."""
        lasts = self.rng.choice([0.5, SOCKET_TIMEOUT + 0.1, TTL, 2 * TTL, 2 * TTL])
        self.stalled_until = self.kernel.now + lasts
        if process and self.rng.random() < 0.3:
            self.freeze(process, lasts)

    def _do_outage(self, process: Process | None) -> None:
        """Nobody reaches the servers; no connection is closed. One may stand still meanwhile, and miss it."""
        lasts = self.rng.choice([1.0, TTL, 2 * TTL])
        self.outage_until = self.kernel.now + lasts
        if process and self.rng.random() < 0.5:
            self.freeze(process, lasts)

    def _do_stall_store(self, _: Process | None) -> None:
        self.stalled[0] = self.kernel.now + self._apart.choice([0.5, SOCKET_TIMEOUT + 0.1, TTL, 2 * TTL])

    def _do_stall_broker(self, _: Process | None) -> None:
        self.stalled[1] = self.kernel.now + self._apart.choice([0.5, SOCKET_TIMEOUT + 0.1, TTL, 2 * TTL])

    def _do_outage_store(self, _: Process | None) -> None:
        self.away[0] = self.kernel.now + self._apart.choice([1.0, TTL, 2 * TTL])

    def _do_outage_broker(self, _: Process | None) -> None:
        self.away[1] = self.kernel.now + self._apart.choice([1.0, TTL, 2 * TTL])

    def _do_failover(self, _: Process | None) -> None:
        """The store's master is gone with its last writes: now, or just when it has granted or fenced something."""
        assert self.replica is not None
        if self._apart.random() < TRAPPED:
            self.replica.trap = self._fail_over
        else:
            self._fail_over()

    def _fail_over(self) -> None:
        """The replica answers in its place, at once or later."""
        assert self.replica is not None
        self.replica.take_over()
        self.ledger.failed_over()
        self.revoking.forgotten()
        self.away[0] = self.kernel.now + self._apart.choice([0.0, 0.5, 2.0])
        self._disturb()
        for worker in self.workers:
            if not worker.dead:
                self.after(self._apart.uniform(0.0, 0.05), worker.connection_dropped)

    def _do_restart(self, _: Process | None) -> None:
        self.store.restart()
        for worker in self.workers:
            if not worker.dead:
                self.after(self.rng.uniform(0.0, 0.05), worker.connection_dropped)

    def _do_wipe(self, _: Process | None) -> None:
        self.store.wipe()
        self.revoking.forgotten()
        if self.rabbit.on:
            self.broker.fenced.clear()  # nobody else knew them
        self.ledger.owners.clear()
        self.ledger.terms = 0
        self.ledger.wiped = True

    def _do_clock_step(self, _: Process | None) -> None:
        self.wall += self.rng.choice([-2.0, -0.5, 0.5, 2.0])

    def _do_stuck_observer(self, process: Process | None) -> None:
        if process and self._spare(process):
            process.stuck_observer = True

    def _do_wedge(self, process: Process | None) -> None:
        if process and self._spare(process):
            process.wedged = True
            if self.rabbit.on:
                self.after(HEARTBEAT, self.rabbit.cut, process.lease)

    def _spare(self, process: Process) -> bool:
        return any(self._sound(worker) for worker in self.workers if worker is not process)

    def _do_child_killed(self, process: Process | None) -> None:
        if process and process.children:
            self._kill_child(self.rng.choice(list(process.children.values())))

    def _do_leave(self, process: Process | None) -> None:
        if process:
            process.leaving = True

    def _do_join(self, _: Process | None) -> None:
        if len(self.workers) < 8:
            self._restart_worker(f"w{len(self.workers) + 1}")

    def _do_late_open(self, _: Process | None) -> None:
        """A newcomer opens in the store long after it joined on the broker; the leader meanwhile finds a stranger."""
        if len(self.workers) < 8:
            self._late_open = True
            self._restart_worker(f"w{len(self.workers) + 1}")
            self.workers[-1].dawdles = True

    def _do_slow_look(self, _: Process | None) -> None:
        """The store answers observers a second late for a while."""
        self.slow_until = self.kernel.now + self.rng.choice([1.0, 5.0])
