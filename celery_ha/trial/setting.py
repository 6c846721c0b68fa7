"""What is around a trial: a folder, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from celery_ha.trial.traces import Traces
from celery_ha.trial.view import View


@contextmanager
def working_folder(prefix: str, view: View, *, keep: bool) -> Iterator[Path]:
    """A folder for logs and ledger, gone afterwards unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        if keep:
            view.say(f"Logs and ledger are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does; both are as they were afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def no_more_interrupts() -> None:
    """From here on it is being taken down: a second Ctrl-C must not leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def leave_nothing(traces: Iterable[Traces]) -> Sequence[str]:
    """Take away what is ours from servers that go on after us; returns what could not be."""
    return [what for each in traces for what in _wiped(each)]


def _wiped(traces: Traces) -> Sequence[str]:
    try:
        traces.wipe()
        return traces.left()
    except Exception as exc:  # noqa: BLE001 - whatever stands in the way, the other servers are cleaned
        return [f"what cannot be asked for ({' '.join(str(exc).split())})"]
    finally:
        traces.close()
