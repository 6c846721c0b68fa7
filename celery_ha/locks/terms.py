"""On what terms a lock is taken."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from celery_ha.errors import ConfigError

OnBusy = Literal["requeue", "wait", "skip", "raise"]
OnLost = Literal["raise", "kill", "flag"]

#: Seconds; the stores know no shorter time.
LEAST = 0.001


@dataclass(frozen=True)
class Terms:
    """On what terms a task takes its locks; see :func:`~celery_ha.locks.task.locked_task`."""

    on_busy: OnBusy = "wait"
    timeout: float | None = None
    limit: int = 1
    max_hold: float | None = None
    on_lost: OnLost = "raise"

    def __post_init__(self) -> None:
        for name, choice in (("on_busy", OnBusy), ("on_lost", OnLost)):
            if getattr(self, name) not in get_args(choice):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is no term of a lock: write one of {', '.join(get_args(choice))}"
                )
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise ConfigError(f"limit={self.limit!r} is no term of a lock: write a whole number, 1 or more")
        for name in ("max_hold", "timeout"):
            value = getattr(self, name)
            if value is not None and not LEAST <= value < inf:
                raise ConfigError(f"{name}={value!r} is no term of a lock: write a number of seconds above 0, or None")
        if self.timeout is not None and self.on_busy != "wait":
            raise ConfigError(f"timeout is for on_busy='wait', not for {self.on_busy!r}")
