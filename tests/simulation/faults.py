"""What goes wrong in one seed: which kinds of faults, how often, when. Everything from one Random.

Each seed draws a few kinds only (swarm testing): a history with many pauses and no crash finds
what one with everything at once drowns.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

#: Simulated seconds in which things go wrong.
CHAOS = 16.0
#: Faults at a single call of a port.
CALL_FAULTS = ("crash_before", "crash_after", "lost_reply", "pause_before", "pause_after", "slow_before", "slow_after")
#: Faults at a point in time.
TIMED_FAULTS = (
    "kill", "power", "pause", "suspend", "drop", "blackhole", "stall", "restart", "wipe",
    "clock_step", "stuck_observer", "wedge", "child_killed", "leave", "join", "slow_look", "outage",
    "late_open",
)  # fmt: skip

#: Where store and broker are two servers: what happens to one of them.
APART = ("stall_store", "stall_broker", "outage_store", "outage_broker", "failover", "failover")

#: Those that leave G4 in force: who is killed is given up within two seconds.
GENTLE = ("kill", "kill", "join", "leave")
#: The same, of a deploy: nodes come and go.
DEPLOY = ("kill", "kill", "join", "join", "leave", "leave")

_WEIGHT = {"crash_before": 1, "crash_after": 1, "lost_reply": 3, "pause_before": 1, "pause_after": 2}


@dataclass(frozen=True)
class Plan:
    """The faults of one seed."""

    call_rate: float
    call_kinds: tuple[str, ...]
    call_weights: tuple[int, ...]
    timed: tuple[tuple[float, str], ...]

    @property
    def gentle(self) -> bool:
        """Processes are killed, leave and join, and nothing else goes wrong."""
        return not self.call_rate and {kind for _, kind in self.timed} <= set(GENTLE)

    @classmethod
    def draw(cls, rng: random.Random, chaos: float) -> Plan:
        if rng.random() < 0.1:
            return cls.draw_gentle(rng, chaos, GENTLE, 3)
        kinds = tuple(kind for kind in CALL_FAULTS if rng.random() < 0.6)
        menu = [kind for kind in TIMED_FAULTS if rng.random() < 0.5] or ["kill"]
        if "wipe" in menu and "clock_step" in menu:
            # Tokens and terms restart at the server's time after a wipe: they grow if it does.
            menu.remove(rng.choice(["wipe", "clock_step"]))
        count = rng.choice([1, 2, 3, 3, 4, 5, 7])
        timed = sorted((rng.uniform(3.0, chaos), rng.choice(menu)) for _ in range(count))
        weights = tuple(_WEIGHT.get(kind, 12) for kind in kinds)
        return cls(rng.choice([0.0, 0.02, 0.06, 0.12]) if kinds else 0.0, kinds, weights, tuple(timed))

    @classmethod
    def draw_gentle(cls, rng: random.Random, chaos: float, menu: tuple[str, ...], count: int) -> Plan:
        return cls(0.0, (), (), draw_timed(rng, chaos, menu, count))

    def with_more(self, timed: tuple[tuple[float, str], ...]) -> Plan:
        return replace(self, timed=tuple(sorted(self.timed + timed)))


def draw_timed(rng: random.Random, chaos: float, menu: tuple[str, ...], count: int) -> tuple[tuple[float, str], ...]:
    return tuple(sorted((rng.uniform(3.0, chaos), rng.choice(menu)) for _ in range(count)))


def draw_apart(rng: random.Random, chaos: float) -> tuple[tuple[float, str], ...]:
    """Faults of one server of two."""
    return draw_timed(rng, chaos, APART, rng.choice([0, 1, 2, 3]))
