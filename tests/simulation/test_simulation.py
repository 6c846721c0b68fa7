"""Many seeds, no guarantee broken. ``HA_SIMULATION_SEEDS`` and ``HA_SIMULATION_START`` choose which."""

from __future__ import annotations

import os

import pytest

from tests.simulation.ledger import Violation
from tests.simulation.world import World

SEEDS = int(os.environ.get("HA_SIMULATION_SEEDS", "2000"))
START = int(os.environ.get("HA_SIMULATION_START", "0"))
#: Seeds of one test, so that a failure does not hide the others and a hang is seen early.
BLOCK = 250


@pytest.mark.parametrize("first", range(START, START + SEEDS, BLOCK))
def test_no_history_breaks_a_guarantee(first: int) -> None:
    for seed in range(first, min(first + BLOCK, START + SEEDS)):
        world = World(seed)
        try:
            world.run()
        except Violation as broken:
            pytest.fail(f"{broken}\nreplay: python -m tests.simulation --seed {seed} --trace")


def test_a_seed_repeats_exactly() -> None:
    def history(seed: int) -> list[str]:
        lines: list[str] = []
        World(seed, out=lines.append).run()
        return lines

    for seed in (3, 20, 27):
        assert history(seed) == history(seed)


def test_killed_workers_are_put_to_the_test() -> None:
    """G4 is only checked where nothing else goes wrong; this says that there are such histories."""
    promises = 0
    for seed in range(150):
        world = World(seed)
        world.run()
        promises += world.promises
    assert promises > 0
