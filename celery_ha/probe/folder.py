"""Where the signs of the workers of a machine are."""

from __future__ import annotations

import os

#: In the environment: the folder.
VARIABLE = "CELERY_HA_PROBE_DIR"
#: Memory, on Linux; writable in containers whose own file system is not.
SHM = "/dev/shm"  # noqa: S108 - a folder in it, owned by this user


def folder_of(given: str | None = None) -> str:
    """The folder: as given, as the environment says, or one for each user."""
    if folder := given or os.environ.get(VARIABLE):
        return folder
    base = SHM if os.access(SHM, os.W_OK) else os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - same
    return os.path.join(base, f"celery_ha-{os.getuid()}")  # noqa: PTH118 - pathlib takes a while to import


def path_of(folder: str, node: str, pid: int) -> str:
    """Where the sign of a worker is; its name may be that of another app's worker too."""
    return os.path.join(folder, f"{node.replace('/', '_')}.{pid}.sign")  # noqa: PTH118 - same


def make(folder: str) -> None:
    """Make the folder, for this user alone.

    Raises:
        OSError: it cannot be made, or it is somebody else's.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - same
    if os.stat(folder).st_uid not in {os.getuid(), 0}:  # noqa: PTH116 - same
        raise PermissionError(f"{folder} belongs to another user")


def write(path: str, text: str) -> None:
    """Put a text there, whole.

    Raises:
        OSError: it cannot be written.

    **Failure:** dying within leaves the old text.
    """
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="utf-8") as file:  # noqa: PTH123 - same
        file.write(text)
    os.replace(new, path)  # noqa: PTH105 - same


def signs(folder: str) -> list[str]:
    """The paths of all signs there, the one that was written last first; none where there is no such folder."""
    try:
        found = [(entry.stat().st_mtime, entry.path) for entry in os.scandir(folder) if entry.name.endswith(".sign")]
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def tidy(folder: str, node: str) -> None:
    """Remove what dead workers of this name have left.

    Raises:
        OSError: it cannot be removed.
    """
    start = path_of(folder, node, 0).removesuffix("0.sign")
    for path in signs(folder):
        pid = path.removeprefix(start).removesuffix(".sign")
        if pid.isdecimal() and not runs(int(pid)):
            os.unlink(path)  # noqa: PTH108 - same
