"""What becomes of a test whose service is not on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """A missing service is skipped on a desk and fails where the result counts."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: tools/services.sh says what to install")
    pytest.skip(f"{what}: tools/services.sh says what to install")
