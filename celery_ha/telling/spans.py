"""Spans of OpenTelemetry, where ``opentelemetry-api`` is installed; nothing where it is not.

Who collects them is the app's business: a tracer provider that is set up in the process, in prefork's children by
``worker_process_init``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import time_ns

_TRACED = find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[dict[str, str | int]]:
    """The block is a span, a child of the current one.

    Args:
        name: of the span.
        attributes: what is known before; prefixed with ``celery_ha.``.

    Yields:
        Attributes that are known afterwards are put here.
    """
    later: dict[str, str | int] = {}
    if not _TRACED:
        yield later
        return
    from opentelemetry import trace  # noqa: PLC0415 - optional

    with trace.get_tracer("celery_ha").start_as_current_span(name) as current:
        current.set_attributes({f"celery_ha.{key}": value for key, value in attributes.items()})
        try:
            yield later
        finally:
            current.set_attributes({f"celery_ha.{key}": value for key, value in later.items()})


def past(name: str, seconds: float, **attributes: str | int) -> None:
    """A span of something that ends now, a child of the current one.

    Args:
        name: of the span.
        seconds: how long it took; by another clock than this machine's, maybe.
        attributes: prefixed with ``celery_ha.``.
    """
    if not _TRACED:
        return
    from opentelemetry import trace  # noqa: PLC0415 - optional

    named = {f"celery_ha.{key}": value for key, value in attributes.items()}
    began = time_ns() - int(seconds * 1e9)
    trace.get_tracer("celery_ha").start_span(name, start_time=began, attributes=named).end()
