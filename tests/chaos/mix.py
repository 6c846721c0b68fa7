"""What is published during a storm: every kind of task, drawn by the seed and the number alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: How often each kind comes up, in a hundred and a few.
SHARES = {
    "order": 22,  # sharded
    "work": 14,  # plain queue
    "report": 10,  # with a priority
    "charge": 22,  # sharded and locked
    "long": 2,  # for longer than a lease lives
    "held": 2,  # the same under a lock
    "eta": 8,
    "expiring": 6,
    "revoked": 3,
    "retried": 6,
    "chord": 6,
    "poison": 1,
}
ACCOUNTS = 6
#: Ways in which a poison task loses its process.
WAYS = ("exit", "segfault", "oom")
#: Attempts of a task that retries, and parts of a chord.
ATTEMPTS, PARTS = 3, 3


@dataclass(frozen=True)
class Order:
    """One thing to publish."""

    kind: str
    key: str
    #: Seconds that a body takes.
    seconds: float
    #: Seconds until it may run, or after which it may not.
    delay: float
    account: str
    priority: int
    way: str

    @property
    def last(self) -> str:
        """The key that ends when all of it has ended."""
        return {"retried": f"{self.key}/{ATTEMPTS - 1}", "chord": f"{self.key}/body"}.get(self.kind, self.key)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys of a chord's header."""
        return tuple(f"{self.key}/{at}" for at in range(PARTS)) if self.kind == "chord" else ()


@dataclass
class Published:
    """What became of the publishing."""

    #: What the broker accepted.
    orders: list[Order] = field(default_factory=list)
    #: Keys whose publishing failed: accepted or not, who knows.
    doubtful: set[str] = field(default_factory=set)
    #: By key: task id, and when it may start or must have started, wall clock.
    ids: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    #: Keys of tasks that a worker confirmed to be revoked, well before they were due.
    revoked: set[str] = field(default_factory=set)

    def of(self, *kinds: str) -> list[Order]:
        return [order for order in self.orders if order.kind in kinds]


def order(seed: int, number: int) -> Order:
    """The task of this number."""
    chance = random.Random(f"{seed}-task-{number}")
    kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
    seconds = {"long": 4.0, "held": 1.0}.get(kind, 0.12) * chance.random()
    delay = {"eta": chance.uniform(0.5, 6.0), "expiring": chance.uniform(0.2, 2.0), "revoked": 8.0}.get(kind, 0.0)
    return Order(
        kind,
        f"{kind}-{number}",
        round(seconds, 3),
        round(delay, 3),
        f"account{chance.randrange(ACCOUNTS)}",
        chance.choice([0, 3, 6, 9]),
        chance.choice(WAYS),
    )
