"""All benchmarks, one after the other, and one table of what they measured: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import report
from benchmarks.machine import machine
from benchmarks.report import Figure
from benchmarks.stage import ended_in_order

#: In this order; one that is not there is left out.
NAMES = ("throughput", "publish", "wakeup", "takeover", "ring", "locks", "rabbitmq", "rabbitmq_kills")


def main(argv: Sequence[str] | None = None) -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: do they run at all?")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    args = parser.parse_args(argv)
    flags = ["--quick"] if args.quick else []
    figures: list[Figure] = []
    with ended_in_order():
        print(machine(), flush=True)
        for name in args.only:
            figures += one(name, flags)
        print()
        report.summary(figures)


def one(name: str, flags: list[str]) -> list[Figure]:
    """Run one benchmark; one that knows no ``parse`` and ``run`` is run as a program, in full only."""
    module = f"benchmarks.{name}"
    if importlib.util.find_spec(module) is None:
        return []
    print(f"\n{name}", flush=True)
    began = time.monotonic()
    loaded = importlib.import_module(module)
    figures: list[Figure] = []
    if hasattr(loaded, "run") and hasattr(loaded, "parse"):
        figures = loaded.run(loaded.parse(flags))
    elif flags:
        print("(has no small size)")
    else:
        subprocess.run([sys.executable, "-m", module], check=True)
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    return figures


if __name__ == "__main__":
    main()
