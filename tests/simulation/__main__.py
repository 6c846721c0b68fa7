"""Run many seeds, or replay one.

python -m tests.simulation --seeds 2000 --start 0
python -m tests.simulation --seed 17 --trace
python -m tests.simulation --seeds 500 --rule-off 3
"""
# ruff: noqa: T201 - its output is its product

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.ledger import Violation
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--rule-off", help="switch a rule off, by the name of its mutant")
    options = parser.parse_args()
    if options.rule_off:
        from tests.simulation.mutants import MUTANTS

        found = [name for name in MUTANTS if name == options.rule_off or name.split("_")[1] == options.rule_off]
        if not found:
            parser.error(f"no such mutant; there are: {', '.join(MUTANTS)}")
        for name in found:
            with MUTANTS[name].applied() as parts:
                _run(options, parts)
        return 0
    return _run(options, {})


def _run(options: argparse.Namespace, parts: dict[str, type]) -> int:
    seeds = range(options.start, options.start + options.seeds) if options.seed is None else [options.seed]
    began = time.perf_counter()
    for seed in seeds:
        world = World(seed, out=print if options.trace else None, **parts)
        try:
            world.run()
        except Violation as broken:
            print(f"seed {seed} after {time.perf_counter() - began:.1f} s, at {world.kernel.now:.3f} s: {broken}")
            print(f"replay: {sys.argv[0]} --seed {seed} --trace")
            return 1
    took = time.perf_counter() - began
    print(f"{len(seeds)} seeds, no guarantee broken, {len(seeds) / took:.0f} seeds a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
