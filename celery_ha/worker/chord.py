"""A chord whose last part was cut off while it was about to publish the body.

Celery 5.7 has the last part claim the body for some seconds, so that two copies of a part do not publish it twice.
A part whose worker dies with that claim is started again here long before it expires, finds the body claimed, and
leaves it at that: nobody would ever publish it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery_ha.worker.claimed import ensure_claimed

#: Seconds between two looks at a claim of the body, and for which it may last at most.
LOOK_EVERY, AT_MOST = 0.2, 60.0


def seen_through(ha: Any, backend: Any) -> Callable[..., Any]:
    """A Redis backend's ``on_chord_part_return`` that comes back when an earlier attempt may have claimed the body.

    **Failure:** dying while it waits has the part delivered again. Counting a part twice changes nothing, and a
    body that was published is marked so.
    """
    count = backend.on_chord_part_return

    @wraps(count)
    def counted(request: Any, *args: Any, **kwargs: Any) -> Any:
        done = count(request, *args, **kwargs)
        if (request.delivery_info or {}).get("redelivered") and _claimed(backend, request):
            deadline = time.monotonic() + AT_MOST
            while _claimed(backend, request) and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY)
            ensure_claimed(ha)
            return count(request, *args, **kwargs)
        return done

    return counted


def _claimed(backend: Any, request: Any) -> bool:
    """Whether somebody, alive or not, is about to publish the body."""
    claim = backend.client.get(backend.get_key_for_group(request.group, ".c")) if request.group else None
    return claim not in (None, b"done", "done")
