"""Run the unit and contract tests, and many with real workers, at both ends of what celery_ha supports.

The oldest Python found on this machine gets the oldest Celery allowed, the newest gets the newest.
Each pair has an environment of its own in ``.venv-matrix``, kept until ``pyproject.toml`` changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv-matrix"
SUPPORTED = [(3, minor) for minor in range(10, 14)]
OLDEST_CELERY = ("celery[redis]==5.6.0", "kombu>=5.6,<5.7")
#: At both ends real workers die too.
TESTS = ("tests/unit", "tests/contract", "tests/integration/test_death.py", "tests/integration/test_locks.py")
#: What goes another way through the oldest Celery and kombu than through the newest, on which all tests run anyway.
OLDEST_TESTS = tuple(f"tests/integration/test_{name}.py" for name in ("features", "freeze", "keys", "leave", "pools"))


@dataclass(frozen=True)
class Pair:
    """A Python and the Celery to test on it."""

    python: Path
    version: tuple[int, int]
    #: Requirements that pin Celery; none: the newest that is allowed.
    celery: tuple[str, ...] = ()
    tests: tuple[str, ...] = TESTS

    @property
    def name(self) -> str:
        """Name of the pair and of its environment's directory."""
        return f"py{self.version[0]}.{self.version[1]}-{'oldest' if self.celery else 'newest'}-celery"


def candidates(version: tuple[int, int]) -> Iterator[Path]:
    """Where a Python of this version may be: on the PATH or among pyenv's."""
    name = f"python{version[0]}.{version[1]}"
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    yield from sorted(Path.home().glob(f".pyenv/versions/{version[0]}.{version[1]}.*/bin/python3"), reverse=True)
    if sys.version_info[:2] == version:
        yield Path(sys.executable)


def works(python: Path, version: tuple[int, int]) -> bool:
    """Whether it starts and is what it says: a pyenv shim on the PATH may be neither."""
    probe = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.split() == [str(part) for part in version]


def interpreters() -> dict[tuple[int, int], Path]:
    """One working Python of every supported version there is, oldest first."""
    found = {version: next((p for p in candidates(version) if works(p, version)), None) for version in SUPPORTED}
    return {version: python for version, python in found.items() if python is not None}


def pairs() -> list[Pair]:
    """The two ends of the matrix; on one Python if there is only one."""
    found = interpreters()
    oldest, newest = min(found), max(found)
    return [Pair(found[oldest], oldest, OLDEST_CELERY, (*TESTS, *OLDEST_TESTS)), Pair(found[newest], newest)]


def run(*command: str | Path, environ: dict[str, str] | None = None) -> None:
    """Run a command in the project's root; end this program if it fails."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environ or {})}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def environment(pair: Pair) -> Path:
    """Make the pair's environment, or find it made already.

    Returns:
        Its Python.
    """
    home = ENVIRONMENTS / pair.name
    python, stamp = home / "bin" / "python", home / ".installed"
    made_of = repr((pair.python, pair.celery))
    recipe = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + made_of.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        return python
    run(pair.python, "-m", "venv", "--clear", home)
    quiet = {"PIP_QUIET": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    run(python, "-m", "pip", "install", "-e", ".[test]", *pair.celery, environ=quiet)
    stamp.write_text(recipe)
    return python


def test(pair: Pair, arguments: Sequence[str]) -> None:
    """Run the tests on one pair."""
    python = environment(pair)
    versions = "import celery, kombu; print(f'Celery {celery.__version__}, kombu {kombu.__version__}')"
    print(f"\n{pair.name}:", end=" ", flush=True)
    run(python, "-c", versions)
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *pair.tests, *arguments)


def main() -> None:
    """Run both ends, the oldest first."""
    for pair in pairs():
        test(pair, sys.argv[1:])


if __name__ == "__main__":
    main()
