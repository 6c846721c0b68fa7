"""Each rule switched off must break the guarantee it is there for, or the simulation proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.ledger import Violation
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import World


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutant_is_found(mutant: Mutant) -> None:
    with mutant.applied() as parts:
        for seed in range(mutant.within):
            world = World(seed, **parts)
            broken = violation(world) if mutant.needs(world) else world.kernel.close()
            if broken is not None:
                assert broken.startswith(mutant.breaks)
                return
    pytest.fail(f"{mutant.what}: not found within {mutant.within} seeds")


def violation(world: World) -> str | None:
    try:
        world.run()
    except Violation as broken:
        return str(broken)
    return None


def test_every_mutant_is_explained() -> None:
    text = "".join(page.read_text() for page in Path(__file__).parents[2].glob("docs/*.md"))
    assert [name for name in MUTANTS if f"`{name}`" not in text] == []
