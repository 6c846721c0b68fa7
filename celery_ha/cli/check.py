"""``ha check``: whether what this app stands on will hold."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict

import click

from celery_ha.cli.command import answering
from celery_ha.cli.show import Answer, Table
from celery_ha.inspect.desk import Desk
from celery_ha.inspect.findings import Finding, of_clock, of_fleet, of_server, of_settings, of_shards
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
    before = time.time()
    now = desk.census.now()
    skew = None if now is None else now - (before + time.time()) / 2
    known = desk.app.amqp.queues
    names = [each for name in desk.queues for each in (name, *shard_names(name, desk.shards.get(name, 0)))]
    findings = [*desk.side.findings(known[name] for name in names)]
    if skew is not None:
        findings.append(of_clock("broker", skew))
    if desk.config.store is not None:
        facts = desk.survey.facts() if desk.tells else {}
        if facts:
            findings += of_server("store", facts)
        else:
            findings.append(Finding("ok", "store", f"{desk.app.ha.store_url} answers, and tells nothing of itself"))
    return findings


def _of_fleet(desk: Desk) -> list[Finding]:
    return [*of_fleet(desk.look), *of_shards(desk.config.queues, desk.census.widest(), desk.look)]
