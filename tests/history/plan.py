"""What is going to happen in a round: everything random, from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Options of the server by what survives its death.
PERSISTENCE = {
    "none": (),
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
}
#: How often each kind of blow is chosen, relative to the others.
BLOWS = {
    "kill client": 4,
    "stop client for long": 4,
    "stop client for short": 3,
    "cut client": 4,
    "kill worker": 2,
    "stop worker": 2,
    "restart server": 3,
    "stall server": 2,
}


@dataclass(frozen=True)
class Blow:
    """One fault."""

    #: Seconds after the beginning.
    at: float
    kind: str
    #: Seconds for which the victim is away.
    lasting: float
    #: Which of the living it strikes, modulo their number.
    victim: int


@dataclass(frozen=True)
class Plan:
    """One round."""

    seed: str
    #: Where the locks live: ``redis`` or ``zookeeper``.
    store: str
    #: Lease TTL, seconds.
    ttl: float
    clients: int
    #: What of the store survives its death; ZooKeeper keeps all it answered.
    persistence: str
    #: Seconds during which locks are taken.
    seconds: float
    blows: tuple[Blow, ...]


def plan(seed: str, *, store: str = "redis", seconds: float = 6.0, blows: int | None = None) -> Plan:
    """Make up a round."""
    chance = random.Random(seed)
    ttl = round(chance.uniform(1.5, 3.0), 2)
    kinds = chance.choices(list(BLOWS), list(BLOWS.values()), k=chance.randint(3, 6) if blows is None else blows)
    times = sorted(chance.uniform(0.1, 0.85) * seconds for _ in kinds)
    made = tuple(
        Blow(round(at, 2), kind, round(_lasting(kind, ttl, chance), 2), chance.randrange(60))
        for at, kind in zip(times, kinds, strict=True)
    )
    clients, persistence = chance.randint(4, 6), chance.choice(sorted(PERSISTENCE))
    return Plan(seed, store, ttl, clients, persistence if store == "redis" else "always", seconds, made)


def _lasting(kind: str, ttl: float, chance: random.Random) -> float:
    if kind == "stop client for short":
        return ttl * chance.uniform(0.1, 0.4)
    if kind in ("stop client for long", "stop worker"):
        return ttl * chance.uniform(1.2, 2.0)
    if kind == "restart server":
        return chance.uniform(0.0, 0.8)
    return ttl * chance.uniform(0.2, 1.2)
