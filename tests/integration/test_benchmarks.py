"""The benchmarks still run: each makes its table at its smallest size. What they measure is no test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    "throughput": "requests/task",
    "publish": "caller CPU us",
    "wakeup": "ratio of medians",
    "takeover": "held starts",
    "locks": "uncontended",
    "rabbitmq": "0 lost",
    "rabbitmq_kills": "SIGKILLs, SIGSTOPs",
}


@pytest.mark.parametrize("name", TABLES)
def test_benchmark_prints_its_table(name: str, redis_server: RedisServer):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert TABLES[name] in done.stdout
    head, *figures = done.stdout.partition("\nfigure ")[2].splitlines()
    assert head.split()[:2] == ["bar", "measured"]
    assert figures
