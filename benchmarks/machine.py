"""One line that says what a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Processor, cores, Python and library versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis"))
    return f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}; {packages}"


def processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
