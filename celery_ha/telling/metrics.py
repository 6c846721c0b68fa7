"""Metrics for Prometheus, counted from the news and from what is measured.

Labels are bounded: words of ours, and names of registered tasks. No task id, lock, lease or node is one; which worker
it was says ``instance``, the label of the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from celery_ha.telling import news
from celery_ha.telling.news import KINDS, News

#: Upper ends, seconds: a recovery takes milliseconds, the verdict before it up to a TTL.
RECOVERY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Upper ends, seconds, of waiting for a lock and of holding one.
LOCKS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
#: The same of standing in line without a slot, which nothing limits.
LINES = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43_200)
#: Upper ends, seconds, of how late a renewal may be; the TTL is 10 unless it was set.
LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

OTHER = "other"
#: What labels may say.
DEATHS = ("renewals stood still", "connections gone", OTHER)
SUSPICIONS = ("heartbeats missing", "connections missing", OTHER)
LETTERS = ("poison", "unknown", "arguments", "invalid", "undecodable", OTHER)
LOSSES = ("fenced", "max_hold", "taken", OTHER)


class Metrics:
    """The metrics of one registry. A :class:`~celery_ha.telling.teller.Listener` and ``Measures``.

    Args:
        registry: of ``prometheus_client``.

    Raises:
        ImportError: ``prometheus_client`` is not installed.
    """

    def __init__(self, registry: Any) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415 - optional

        def counter(name: str, text: str, label: str = "", *values: str) -> Any:
            made = Counter(f"celery_ha_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)  # at 0: of a series that begins with 1 Prometheus sees no increase
            return made

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return Histogram(f"celery_ha_{name}", text, labels, buckets=buckets, registry=registry)

        self._registry, self._gauge = registry, Gauge
        self._elections = counter("elections", "Elections won")
        self._suspicions = counter("suspicions", "Workers that were suspected", "reason", *SUSPICIONS)
        self._false = counter("false_suspicions", "Suspected workers that showed a sign of life", "reason", *SUSPICIONS)
        self._deaths = counter("deaths", "Leases that were fenced", "reason", *DEATHS)
        self._recovery = histogram("recovery_seconds", "From a fence to the end of the recovery", RECOVERY)
        self._requeued = counter(
            "requeued", "Messages of dead workers that went back to their queues", "started", "yes", "no"
        )
        self._settled = counter("locks_settled", "Locks of dead workers that were freed or kept in trust")
        self._moved = counter(
            "shards_moved", "Shards that a worker took over or let go of", "direction", "gained", "lost"
        )
        self._letters = counter("dead_letters", "Messages that were given up", "cause", *LETTERS)
        self._locks_lost = counter("locks_lost", "Locks that were lost while they were held", "cause", *LOSSES)
        self._leases_lost = counter("leases_lost", "Leases that a living worker lost")
        self._wedged = counter("wedged", "Main loops and pools that were found wedged")
        self._stuck = counter("stuck_reconnects", "Connections that a stuck worker gave up", "what", "consumer", "loop")
        self._drained = counter("drained", "Workers that said goodbye", "clean", "yes", "no")
        self._wait = histogram("lock_wait_seconds", "Requests for a lock, by outcome", LOCKS, "task", "outcome")
        self._line = histogram(
            "lock_line_seconds", "From a busy lock to its grant, of messages parked in its line", LINES, "task"
        )
        self._hold = histogram("lock_hold_seconds", "From the grant of a lock to its release", LOCKS, "task")
        self._lag = histogram("lease_renewal_lag_seconds", "How late renewals succeeded", LAG)
        self._count: dict[str, Callable[[Mapping[str, Any]], None]] = {
            news.LEADER.name: lambda _: self._elections.inc(),
            news.SUSPECTED.name: lambda f: self._suspicions.labels(_word(f["reason"], SUSPICIONS)).inc(),
            news.CLEARED.name: lambda f: self._false.labels(_word(f["reason"], SUSPICIONS)).inc(),
            news.FENCED.name: lambda f: self._deaths.labels(_word(f["reason"], DEATHS)).inc(),
            news.FAILOVER.name: self._recovered,
            news.SHARDS.name: self._shards_moved,
            news.DEAD_LETTER.name: lambda f: self._letters.labels(_word(f["cause"], LETTERS)).inc(),
            news.LOCK_LOST.name: lambda f: self._locks_lost.labels(_word(f["cause"], LOSSES)).inc(),
            news.LEASE_LOST.name: lambda _: self._leases_lost.inc(),
            news.WEDGED.name: lambda _: self._wedged.inc(),
            news.STUCK.name: lambda f: self._stuck.labels("consumer" if f["queues"] else "loop").inc(),
            news.DRAINED.name: lambda f: self._drained.labels("yes" if f["clean"] else "no").inc(),
        }

    @classmethod
    def of_process(cls) -> Metrics:
        """Those in the registry that ``prometheus_client`` serves by default; one set a process."""
        return _of_process()

    def put(self, news: News) -> None:
        """Count news."""
        count = self._count.get(news.kind.name)
        if count is not None:
            count(news.fields)

    def put_event(self, event: Mapping[str, Any]) -> None:
        """Count an event of Celery's, if it is one of ours and has what we know of it."""
        kind = KINDS.get(str(event.get("type")))
        if kind is not None and all(name in event for name in (*news.ALWAYS, *kind.fields)):
            self.put(News.of(kind, **{name: event[name] for name in (*news.ALWAYS, *kind.fields)}))

    def measure(self, what: str, seconds: float, labels: dict[str, str]) -> None:
        """Take a measurement: ``lock_wait``, ``lock_line``, ``lock_hold`` or ``renewal_lag``."""
        if what == "lock_wait":
            self._wait.labels(labels["task"], labels["outcome"]).observe(seconds)
        elif what == "lock_line":
            self._line.labels(labels["task"]).observe(seconds)
        elif what == "lock_hold":
            self._hold.labels(labels["task"]).observe(seconds)
        elif what == "renewal_lag":
            self._lag.observe(seconds)

    def follow(self, name: str, text: str, ask: Callable[[], float]) -> None:
        """A gauge that asks when it is scraped."""
        self._gauge(f"celery_ha_{name}", text, registry=self._registry).set_function(ask)

    def close(self, within: float) -> None:
        """Nothing is left to do."""

    def _recovered(self, fields: Mapping[str, Any]) -> None:
        self._recovery.observe(fields["seconds"])
        self._requeued.labels("yes").inc(fields["restarted"])
        self._requeued.labels("no").inc(fields["requeued"] - fields["restarted"])
        self._settled.inc(fields["locks"])

    def _shards_moved(self, fields: Mapping[str, Any]) -> None:
        self._moved.labels("gained").inc(fields["gained"])
        self._moved.labels("lost").inc(fields["lost"])


@cache
def _of_process() -> Metrics:
    from prometheus_client import REGISTRY  # noqa: PLC0415 - optional

    return Metrics(REGISTRY)


def _word(text: object, words: tuple[str, ...]) -> str:
    return str(text) if text in words else OTHER
