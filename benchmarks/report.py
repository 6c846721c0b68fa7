"""Figures against their bars, and tables of them."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.machine import machine
from benchmarks.stage import ended_in_order


@dataclass(frozen=True)
class Figure:
    """One measured figure and what it must reach."""

    name: str
    value: float
    bar: float
    unit: str = "x"
    #: The bar is the least that will do; otherwise it is the most.
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def row(self) -> tuple[str, str, str, str]:
        """Name, bar, measured, verdict."""
        sign = ">=" if self.at_least else "<="
        return self.name, f"{sign} {self.bar:g} {self.unit}", f"{self.value:.2f} {self.unit}", mark(self)


def mark(figure: Figure) -> str:
    return "pass" if figure.met else "FALLS SHORT"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a head: the first column to the left, the others to the right."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *cells)), flush=True)


def summary(figures: Iterable[Figure]) -> None:
    """Print each figure against its bar."""
    table(("figure", "bar", "measured", ""), (figure.row() for figure in figures))


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def p99(values: Iterable[float]) -> float:
    """The nearest-rank 99th percentile: of fewer than 100 values the largest."""
    ranked = sorted(values)
    return ranked[math.ceil(0.99 * len(ranked)) - 1]


def paired(ours: Iterable[float], plain: Iterable[float]) -> float:
    """The median of the ratios of runs that were made side by side."""
    return median(our / its for our, its in zip(ours, plain, strict=True))


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark understands."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--rounds", type=int, help=f"how often each side is measured; default {rounds}")
    made.add_argument("--quick", action="store_true", help="small numbers: does it run at all?")
    return made


def alone(parse: Callable[[], argparse.Namespace], run: Callable[[argparse.Namespace], Sequence[Figure]]) -> None:
    """Run one benchmark as a program of its own."""
    args = parse()
    with ended_in_order():
        print(machine(), flush=True)
        figures = run(args)
        print()
        summary(figures)
    sys.exit(0)
