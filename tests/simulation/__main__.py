"""Run many seeds, or replay one.

python -m tests.simulation --seeds 10000 --start 0
python -m tests.simulation --seed 17 --trace
python -m tests.simulation --seeds 500 --rule-off 3
"""
# ruff: noqa: T201 - its output is its product

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.ledger import Violation
from tests.simulation.many import run_many
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--cores", type=int, help="how many processes (one a core)")
    parser.add_argument("--rule-off", help="switch a rule off, by the name of its mutant")
    options = parser.parse_args()
    if options.rule_off:
        from tests.simulation.mutants import MUTANTS

        found = [name for name in MUTANTS if name == options.rule_off or name.split("_")[1] == options.rule_off]
        if not found:
            parser.error(f"no such mutant; there are: {', '.join(MUTANTS)}")
        for name in found:
            print(name)
            with MUTANTS[name].applied() as parts:
                _run(options, parts)
        return 0
    return _run(options, {})


def _run(options: argparse.Namespace, parts: dict[str, type]) -> int:
    """Run what was asked for; 1 if a guarantee was broken."""
    if options.seed is not None:
        return _replay(options.seed, parts, trace=options.trace)
    began, done, broken = time.perf_counter(), 0, []
    for ran in run_many(range(options.start, options.start + options.seeds), parts, cores=options.cores):
        done += ran.seeds
        broken += ran.broken
        for each in ran.broken:
            print(f"seed {each.seed}, at {each.at:.3f} s: {each.what}")
            print(f"replay: python -m tests.simulation --seed {each.seed} --trace", flush=True)
        if broken and parts:
            break  # a mutant is found
    took = time.perf_counter() - began
    print(f"{done} seeds, {len(broken) or 'none'} broke a guarantee, {took:.1f} s, {done / took:.0f} seeds a second")
    return 1 if broken else 0


def _replay(seed: int, parts: dict[str, type], *, trace: bool) -> int:
    world = World(seed, out=print if trace else None, **parts)
    try:
        world.run()
    except Violation as broken:
        print(f"seed {seed}, at {world.kernel.now:.3f} s: {broken}")
        return 1
    print(f"seed {seed}: no guarantee broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
