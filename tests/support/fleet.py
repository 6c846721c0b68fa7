"""Real worker processes of the probe app, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def eventually(happened: Callable[[], Any], *, within: float = 60.0, every: float = 0.02, why: str = "") -> Any:
    """Wait for a condition, not for a time: returns its first true value.

    Raises:
        AssertionError: it did not come true within the bound, which is far above what is normal.
    """
    deadline = time.monotonic() + within
    while True:
        value = happened()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {within} s: {why or happened}")
        time.sleep(every)


@dataclass
class Worker:
    """One ``celery worker`` main process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[int]:
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def send(self, signum: int) -> float:
        """Signal the main process; returns when, wall clock."""
        now = time.time()
        os.kill(self.pid, signum)
        return now

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        eventually(lambda: self.said(" ready.") or not self.alive, why=f"{self.name} ready")
        assert self.alive, f"{self.name} died at start:\n{self.log.read_text(errors='replace')[-4000:]}"


@dataclass
class Fleet:
    """Workers of one app in one directory; ends what it started, by pid."""

    directory: Path
    environment: dict[str, str]
    app: str = "tests.support.probe"
    workers: list[Worker] = field(default_factory=list)
    started: int = 0

    def start(self, *options: str, name: str | None = None, ready: bool = True, **environment: str) -> Worker:
        name = name or f"w{self.started + 1}@probe"
        worker = self.launch(name, "worker", "-n", name, *options, **environment)
        if ready:
            worker.wait_ready()
        return worker

    def launch(self, name: str, *command: str, **environment: str) -> Worker:
        """Start any of Celery's programs on the app."""
        self.started += 1
        log = self.directory / f"{name}.{self.started}.log"
        command = (sys.executable, "-m", "celery", "-A", self.app, *command, "-l", "INFO")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **self.environment, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = Worker(name, process, log)
        self.workers.append(worker)
        return worker

    def start_many(self, count: int, *options: str, **environment: str) -> list[Worker]:
        workers = [self.start(*options, ready=False, **environment) for _ in range(count)]
        for worker in workers:
            worker.wait_ready()
        return workers

    def close(self) -> None:
        for worker in self.workers:
            family = worker.children()
            for pid in [worker.pid, *family]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            worker.process.wait()


@contextmanager
def fleet(directory: Path, **environment: str) -> Iterator[Fleet]:
    workers = Fleet(directory, environment)
    try:
        yield workers
    finally:
        workers.close()
