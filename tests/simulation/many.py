"""Many seeds, on all cores: each process runs blocks of them."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.ledger import Violation
from tests.simulation.world import World

#: Seeds that a process runs at a time.
BLOCK = 50


@dataclass(frozen=True)
class Broken:
    """A seed whose history broke a guarantee."""

    seed: int
    #: Simulated seconds after its beginning.
    at: float
    what: str


@dataclass(frozen=True)
class Ran:
    """One block."""

    seeds: int
    broken: tuple[Broken, ...] = ()
    #: Times that G4 was put to the test.
    promises: int = 0


def run_many(
    seeds: Sequence[int], parts: Mapping[str, type] | None = None, *, cores: int | None = None
) -> Iterator[Ran]:
    """Run seeds; yields a block at a time, in no order.

    Args:
        seeds: which.
        parts: classes for :class:`~tests.simulation.world.World`, of a mutant whose patches are applied here.
        cores: how many processes; None: one a core.
    """
    blocks = [(seeds[at : at + BLOCK], dict(parts or {})) for at in range(0, len(seeds), BLOCK)]
    # Forked: what a mutant patched in this process is patched in those.
    with multiprocessing.get_context("fork").Pool(cores or os.cpu_count()) as pool:
        yield from pool.imap_unordered(_run_block, blocks)


def _run_block(block: tuple[Sequence[int], dict[str, type]]) -> Ran:
    """A seed leaves a heap of cycles: collecting them once a block is a sixth cheaper than all the time."""
    seeds, parts = block
    gc.disable()
    try:
        ran = [run_one(seed, parts) for seed in seeds]
    finally:
        gc.enable()
        gc.collect()
    found = tuple(broken for broken, _ in ran if broken is not None)
    return Ran(len(seeds), found, sum(promises for _, promises in ran))


def run_one(seed: int, parts: Mapping[str, type]) -> tuple[Broken | None, int]:
    """One seed: what broke, and how often G4 was put to the test."""
    world = World(seed, **parts)  # type: ignore[arg-type]
    try:
        world.run()
    except Violation as broken:
        return Broken(seed, world.kernel.now, str(broken)), world.promises
    return None, world.promises
