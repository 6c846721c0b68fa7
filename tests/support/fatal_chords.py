"""A child that dies, or takes its worker's main process with it, at one step of counting a chord's part.

The step is told by a file in a folder, ``<step>.<who>``; whoever takes the file away is struck, so each file strikes once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.backends import redis as backend
from redis.commands.core import Script

from celery_ha.amqp import AMQP

#: Between the end of a part's body and the acknowledgement of its message, in this order; but for the first, of the part
#: that publishes the chord's body.
STEPS = ("counting", "counted", "gathered", "extended", "publishing", "published", "cleaned")
#: Before and after each of Celery's scripts.
SCRIPTS = {
    backend.CHORD_PART_RETURN_LUA: ("counting", "counted"),
    backend.CHORD_CLAIM_EXTEND_LUA: ("gathered", "extended"),
    backend.CHORD_CLEANUP_LUA: ("", "cleaned"),
}


def strike_at_steps(folder: Path) -> None:
    """From now on look at every step whether this process is to be struck."""
    run, publish = Script.__call__, AMQP._retry_publish

    def ran(script: Any, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        before, after = SCRIPTS.get(script.script, ("", ""))
        _strike(folder, before)
        answer = run(script, keys=keys, args=args, client=client)
        if after != "counted" or answer[3]:  # the part that publishes the body
            _strike(folder, after)
        return answer

    def published(amqp: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_a_body(args):
            _strike(folder, "publishing")
        answer = publish(amqp, *args, **kwargs)
        if _is_a_body(args):
            _strike(folder, "published")
        return answer

    Script.__call__ = ran
    AMQP._retry_publish = published


def _is_a_body(args: tuple[Callable[..., Any], ...]) -> bool:
    return getattr(args[0], "__name__", "") == "delay"


def _strike(folder: Path, step: str) -> None:
    if step and _take(folder / f"{step}.child"):
        os.kill(os.getpid(), signal.SIGKILL)
    if step and _take(folder / f"{step}.told"):
        os.kill(os.getpid(), signal.SIGTERM)  # as a cold shutdown does: SystemExit
        time.sleep(60)
    if step and _take(folder / f"{step}.main"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # its children follow it
    if step and _take(folder / f"{step}.frozen"):
        os.kill(os.getppid(), signal.SIGSTOP)
        (folder / "frozen").write_text(str(os.getppid()))
        while not _take(folder / "go"):
            time.sleep(0.01)
        (folder / "frozen").unlink()


def _take(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True
