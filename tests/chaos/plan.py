"""What is going to go wrong, and when: everything from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: How often each kind of blow is in one deck; decks are shuffled and dealt one after the other, so that every kind
#: comes up as soon as there are as many blows as a deck has cards.
DECK = {
    "kill": 4,  # SIGKILL of a main process
    "twins": 1,  # of two at the same moment
    "freeze": 3,  # SIGSTOP of a main process, for longer than the TTL
    "child": 4,  # SIGKILL of a process of a pool
    "leave": 2,  # SIGTERM
    "quit": 1,  # SIGQUIT
    "drain": 1,  # `celery ha drain`
    "stall": 1,  # SIGSTOP of the server, for half a TTL to two
    "restart": 1,  # SIGKILL of the server, which remembers every write it has confirmed
}


@dataclass(frozen=True)
class Plan:
    """A storm."""

    seed: int = 1
    #: Minutes of blows, if nothing holds them up; a blow waits until more than half of the workers are ready.
    minutes: float = 5.0
    #: Whether to stop when these minutes are over by the clock, however many blows a busy machine has left undealt.
    punctual: bool = False
    workers: int = 6
    #: Seconds; the lease TTL.
    ttl: float = 2.5
    #: Tasks published a second.
    rate: float = 20.0
    #: Seconds between two blows, at least and at most.
    pause: tuple[float, float] = (0.8, 2.4)
    #: The kinds of blows; others stay in the box.
    kinds: tuple[str, ...] = tuple(DECK)


@dataclass(frozen=True)
class Blow:
    """One thing that goes wrong."""

    #: Seconds after the one before.
    pause: float
    kind: str
    #: Chooses the victim among those there are, by its place in the order of their names; from 0 to below 1.
    victim: float
    #: How hard it is, where it can be more or less so; from 0 to below 1.
    force: float


def blows(plan: Plan) -> tuple[Blow, ...]:
    """All blows of a storm, the same for the same plan.

    Raises:
        ValueError: there is no such kind.
    """
    unknown = set(plan.kinds) - set(DECK)
    if unknown:
        raise ValueError(f"no such blow: {', '.join(sorted(unknown))}; there are {', '.join(DECK)}")
    chance, dealt, at = random.Random(f"{plan.seed}-blows"), [], 0.0
    deck: list[str] = []
    while True:
        if not deck:
            deck = [kind for kind, count in DECK.items() if kind in plan.kinds for _ in range(count)]
            chance.shuffle(deck)
        blow = Blow(chance.uniform(*plan.pause), deck.pop(), chance.random(), chance.random())
        at += blow.pause
        if at > plan.minutes * 60:
            return tuple(dealt)
        dealt.append(blow)
