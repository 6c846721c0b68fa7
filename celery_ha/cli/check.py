"""``ha check``: whether what this app stands on will hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import click

from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table
from celery_ha.inspect.desk import Desk
from celery_ha.inspect.findings import Finding, of_clock, of_fleet, of_server, of_settings, of_shards, of_zookeeper
from celery_ha.keys import shard_names


@click.command()
@answering
def check(desk: Desk) -> Answer:
    """Look for what would break a promise; exit code 1 if there is an error."""
    findings = [*of_settings(desk.app.conf), *_of_servers(desk), *_of_fleet(desk)]
    counts = Counter(finding.level for finding in findings)
    rows = [(finding.level, finding.about, finding.text) for finding in findings]
    total = ", ".join(f"{counts[level]} {level}" for level in ("error", "warning", "ok"))
    bad = counts["error"] > 0
    return Answer(
        [asdict(finding) for finding in findings], [Table(("level", "about", "finding"), rows), total], bad=bad
    )


def _of_servers(desk: Desk) -> list[Finding]:
    known = desk.app.amqp.queues
    names = [each for name in desk.queues for each in (name, *shard_names(name, desk.shards.get(name, 0)))]
    findings = [*desk.side.findings(known[name] for name in names)]
    findings += _of_clock("broker", desk.census.now)
    if desk.config.store is not None and desk.tells:
        facts = desk.survey.facts()
        findings += (of_zookeeper if "session_timeout" in facts else of_server)("store", facts)
        findings += _of_clock("store", desk.survey.now)
    return findings


def _of_clock(about: str, ask: Callable[[], float | None]) -> list[Finding]:
    before = time.time()
    now = ask()
    return [] if now is None else [of_clock(about, now - (before + time.time()) / 2)]


def _of_fleet(desk: Desk) -> list[Finding]:
    return [*of_fleet(desk.look), *of_shards(desk.config.queues, desk.census.widest(), desk.look)]
