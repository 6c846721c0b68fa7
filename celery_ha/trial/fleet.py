"""The workers: real processes, started, killed, frozen and ended by their process ids."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

#: Seconds a worker gets to finish what it runs.
GOODBYE = 10.0


class WorkerGone(Exception):
    """A worker ended by itself; the message has the end of its log."""


class NotOurs(Exception):
    """A worker that was not started here is to be touched, or takes part; the message says which."""


@dataclass(frozen=True)
class Crew:
    """How to start the workers."""

    #: Module of the app, as after ``celery -A``.
    app: str
    #: What they consume.
    queue: str
    names: tuple[str, ...]
    #: Of the pool.
    concurrency: int
    #: Celery's name of the pool; None: whatever the app says.
    pool: str | None = None
    #: Variables to add to our environment.
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, name: str) -> Sequence[str]:
        """The command line of one."""
        line = f"-m celery -A {self.app} worker -n {name} -Q {self.queue} -c {self.concurrency}"
        pool = f"-P {self.pool}" if self.pool else ""
        return (sys.executable, *f"{line} {pool} --without-mingle --without-gossip -l INFO".split())


class Fleet:
    """Celery workers of one crew. Leaving the block ends them all.

    No signal is ever sent to a process that was not started here, or that has been reaped since.

    Args:
        crew: who they are.
        folder: for their logs.
    """

    def __init__(self, crew: Crew, folder: Path) -> None:
        self.names = crew.names
        self._crew = crew
        self._folder = folder
        self._environment = {**os.environ, **crew.environment, "PYTHONPATH": _python_path()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._struck: set[str] = set()

    def __enter__(self) -> Fleet:  # noqa: PYI034 - typing.Self needs Python 3.11
        try:
            for name in self.names:
                self._start(name)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def kill(self, name: str) -> None:
        """SIGKILL the worker's main process; its pool children must notice by themselves.

        Raises:
            NotOurs: it was not started here, or is gone.
        """
        process = self._ours(name)
        self._struck.add(name)
        os.kill(process.pid, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """SIGSTOP the worker and its children, as when a virtual machine is paused.

        Raises:
            NotOurs: it was not started here, or is gone.
        """
        process = self._ours(name)
        self._struck.add(name)
        _signal_group(process, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT them."""
        _signal_group(self._ours(name), signal.SIGCONT)
        self._struck.discard(name)

    def replace(self, name: str) -> None:
        """Start a worker that was killed anew, under the same name."""
        self._processes.pop(name).wait()
        self._start(name)
        self._struck.discard(name)

    def pids(self) -> tuple[int, ...]:
        """Of the main processes that have not been reaped."""
        return tuple(process.pid for process in self._processes.values() if process.returncode is None)

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
        there = [process for process in self._processes.values() if process.returncode is None]
        for process in there:
            _signal_group(process, signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + GOODBYE
        for process in there:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
            # What is left of its process group is its children: they hold nothing any more.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own interpreter
                self._crew.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # a process group of its own, to freeze and to end as one
            )

    def _ours(self, name: str) -> subprocess.Popen[bytes]:
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            raise NotOurs(f"{name} was not started here, or is gone: it is left alone")
        return process

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.partition('@')[0]}.log"


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _python_path() -> str:
    """So that a worker finds the package even where it is not installed."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
