"""Each rule switched off must break the guarantee it is there for, or the simulation proves nothing."""

from __future__ import annotations

import pytest

from tests.simulation.ledger import Violation
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import World


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutant_is_found(mutant: Mutant) -> None:
    with mutant.applied() as parts:
        for seed in range(mutant.within):
            try:
                World(seed, **parts).run()
            except Violation as broken:
                assert str(broken).startswith(mutant.breaks), broken
                return
    pytest.fail(f"{mutant.what}: not found within {mutant.within} seeds")
