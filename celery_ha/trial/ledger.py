"""The tasks' own record of what ran: append-only files, one line an event.

Each process writes its own file with ``O_APPEND``, a whole line in one ``write``: a process that is
killed leaves at most its last line incomplete, and cannot damage another's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from celery_ha.trial.verdict import END, START, Event

SUFFIX = ".jsonl"


class LedgerWriter:
    """Writes the events of one execution.

    Args:
        folder: where the ledger is.
        node: name of the worker.
        task: the task's key.
        lock: name of the lock it holds.
        token: the lock's token.
        attempt: 1, or more if earlier attempts had started.
    """

    def __init__(self, folder: Path, *, node: str, task: str, lock: str, token: int, attempt: int) -> None:
        self._path = folder / f"{node}.{os.getpid()}{SUFFIX}"
        self._node, self._task, self._lock = node, task, lock
        self._token, self._attempt = token, attempt
        self._run = uuid4().hex

    def write(self, event: str) -> None:
        """Note that something happened now."""
        line = Event(
            event=event,
            task=self._task,
            lock=self._lock,
            run=self._run,
            attempt=self._attempt,
            pid=os.getpid(),
            node=self._node,
            token=self._token,
            wall=time.time(),
            mono=time.monotonic(),
        )
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(asdict(line)).encode() + b"\n")
        finally:
            os.close(file)


class LedgerReader:
    """Reads what was added since the last time.

    Args:
        folder: where the ledger is.
    """

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        #: Where each finished task first came to its end.
        self.finished: dict[str, str] = {}
        #: Executions that go on, by node.
        self._running: dict[str, set[str]] = {}
        self._folder = folder
        self._read: dict[Path, int] = {}

    def runs_on(self, node: str) -> bool:
        """Whether a task has started there and not come to its end, as far as was read."""
        return bool(self._running.get(node))

    def refresh(self) -> None:
        """Read on."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            for event in self._added(path):
                self.events.append(event)
                running = self._running.setdefault(event.node, set())
                (running.add if event.event == START else running.discard)(event.run)
                if event.event == END:
                    self.finished.setdefault(event.task, event.node)

    def _added(self, path: Path) -> Iterator[Event]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written, or its writer was killed
                self._read[path] = self._read.get(path, 0) + len(line)
                yield Event(**json.loads(line))
