"""The workers: real processes, started, killed, frozen and ended by their process ids."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import celery_ha
from celery_ha.demo.settings import CONCURRENCY, QUEUE

#: Seconds a worker gets to finish what it runs.
GOODBYE = 10.0


class WorkerGone(Exception):
    """A worker ended by itself; the message has the end of its log."""


class Fleet:
    """Celery workers ``w1@demo``, ``w2@demo``, ... Leaving the block ends them all.

    Args:
        count: how many.
        folder: for their logs.
        environment: variables to add to ours.
    """

    def __init__(self, count: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.names = tuple(f"w{number}@demo" for number in range(1, count + 1))
        self._folder = folder
        self._environment = {**os.environ, **environment, "PYTHONPATH": _python_path()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._struck: set[str] = set()

    def __enter__(self) -> Fleet:  # noqa: PYI034 - typing.Self needs Python 3.11
        try:
            for name in self.names:
                with self._log(name).open("wb") as log:
                    self._processes[name] = self._start(name, log)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def kill(self, name: str) -> None:
        """SIGKILL the worker's main process; its pool children must notice by themselves."""
        self._struck.add(name)
        os.kill(self._processes[name].pid, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """SIGSTOP the worker and its children, as when a virtual machine is paused."""
        self._struck.add(name)
        self._signal_group(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT them."""
        self._signal_group(name, signal.SIGCONT)

    def check(self) -> None:
        """Make sure that all workers run that should.

        Raises:
            WorkerGone: one does not.
        """
        for name, process in self._processes.items():
            if name not in self._struck and process.poll() is not None:
                lines = self._log(name).read_text(errors="replace").strip().splitlines()
                raise WorkerGone(f"{name} ended with {process.returncode}: " + "\n".join(lines[-20:]))

    def end(self) -> None:
        """Warm shutdown for all, and the hard way for whoever does not come to an end."""
        # A worker that was reaped before is none of ours any more: its number may be somebody else's.
        there = [name for name, process in self._processes.items() if process.returncode is None]
        for name in there:
            self._signal_group(name, signal.SIGCONT)
            self._processes[name].terminate()
        deadline = time.monotonic() + GOODBYE
        for name in there:
            process = self._processes[name]
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
            # What is left of its process group is its children: they hold nothing any more.
            self._signal_group(name, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def _start(self, name: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = f"-m celery -A celery_ha.demo.app worker -n {name} -Q {QUEUE} -P prefork -c {CONCURRENCY}"
        options = "--without-mingle --without-gossip -l INFO"
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, *command.split(), *options.split()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environment,
            start_new_session=True,  # a process group of its own, to freeze and to end as one
        )

    def _signal_group(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[name].pid, number)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.partition('@')[0]}.log"


def _python_path() -> str:
    """So that a worker finds the package even where it is not installed."""
    here = str(Path(celery_ha.__file__).parent.parent)
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
