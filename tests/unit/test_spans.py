"""Spans of OpenTelemetry, on the memory store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_ha.failover.recovery import recover
from celery_ha.locks.lock import Lock
from celery_ha.model import Holder
from celery_ha.telling import spans

sdk = pytest.importorskip("opentelemetry.sdk.trace")
pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def exporter():
    """Where the spans of this process go; a process has one provider for good."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    made = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    return made


@pytest.fixture
def recorded(exporter) -> Iterator:
    exporter.clear()
    return exporter.get_finished_spans


class Locks:
    """Grants a lock once."""

    def __init__(self) -> None:
        self.holder: Holder | None = None

    def acquire(self, name, holder, **terms):
        from celery_ha.model import Grant

        if self.holder is not None:
            return Grant(None, self.holder)
        self.holder = holder
        return Grant(41)


def test_waiting_for_a_lock_is_a_span_of_the_task_that_waits(recorded):
    from opentelemetry import trace

    locks = Locks()
    with trace.get_tracer("test").start_as_current_span("the task") as parent:
        Lock(locks, "account:7", Holder("a", "a.1", "t1"), inherit=0).acquire()
        Lock(locks, "account:7", Holder("b", "b.1", "t2"), inherit=0).acquire()
    granted, busy, _ = recorded()
    assert {granted.name, busy.name} == {"celery_ha.lock.wait"}
    assert granted.parent.span_id == parent.get_span_context().span_id
    assert dict(granted.attributes) == {
        "celery_ha.lock": "account:7", "celery_ha.outcome": "granted", "celery_ha.token": 41,
    }  # fmt: skip
    assert busy.attributes["celery_ha.outcome"] == "busy"


def test_standing_in_line_as_a_message_is_a_span_that_began_before_the_task(recorded):
    class Line:
        def acquire(self, *_, **__):
            from celery_ha.model import Grant

            return Grant(41, in_line=12.5)

    Lock(Line(), "account:7", Holder("a", "a.1", "t1"), inherit=0).acquire()
    line, wait = recorded()
    assert (line.name, wait.name) == ("celery_ha.lock.line", "celery_ha.lock.wait")
    assert line.parent.span_id == wait.context.span_id
    assert 12.5e9 <= line.end_time - line.start_time < 13.5e9
    assert dict(line.attributes) == {"celery_ha.lock": "account:7"}


def test_a_store_that_is_away_is_an_error_of_the_span(recorded):
    class Away:
        def acquire(self, *_, **__):
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        Lock(Away(), "x", Holder("a", "a.1", "t1"), inherit=0).acquire()
    (span,) = recorded()
    assert not span.status.is_ok


def test_a_recovery_is_a_span_with_what_it_moved(recorded):
    class Broker:
        def fence(self, lease): ...
        def in_flight(self, lease):
            return ()

        def requeue(self, mended):
            list(mended)

        def forget(self, lease):
            return True

    class Settles:
        def settle(self, lease, restarted):
            return 3

    recover([], Broker(), Settles(), None, strangers=["x"])
    (span,) = recorded()
    assert span.name == "celery_ha.recovery"
    assert dict(span.attributes) == {
        "celery_ha.leases": 1, "celery_ha.requeued": 0, "celery_ha.restarted": 0, "celery_ha.locks": 3,
    }  # fmt: skip


def test_without_opentelemetry_there_is_no_span_and_no_error(recorded, monkeypatch):
    monkeypatch.setattr(spans, "_TRACED", False)
    with spans.span("x", lock="y") as attributes:
        attributes["z"] = 1
    spans.past("x", 1.0, lock="y")
    assert recorded() == ()
