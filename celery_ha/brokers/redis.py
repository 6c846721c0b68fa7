"""The broker port on Redis or Valkey: every move between places is one script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery_ha.brokers.base import Broker, NodeBroker
from celery_ha.brokers.layout import PUBLISH_MEMORY, TOMBSTONE, Layout
from celery_ha.errors import StoreUnavailable
from celery_ha.lua import Script, not_now
from celery_ha.model import Batch, Claim, Ending, Settlement

#: Claims moved by one requeue script: order across more than that is best effort (rule 18).
CHUNK = 1_000

_LETTER = {Ending.ACK: "a", Ending.RELEASE: "r", Ending.DEAD: "d", Ending.DEFER: "u"}


def _script(name: str) -> Script:
    return Script("celery_ha.brokers", name)


CLAIM, START, SETTLE = _script("claim"), _script("start"), _script("settle")
PUBLISH, JOIN, LEAVE, HELD = _script("publish"), _script("join"), _script("leave"), _script("held")
FENCE, REQUEUE, FORGET = _script("fence"), _script("requeue"), _script("forget")


def endings(settle: Sequence[Settlement]) -> list[Any]:
    """Settlements as the scripts read them; see ``_settle.lua``."""
    args: list[Any] = []
    for item in settle:
        if item.ending is Ending.RELEASE and item.payload is not None:
            args += [f"R{item.claim}", item.payload]
        elif item.ending is Ending.DEAD:
            args += [f"d{item.claim}", item.reason]
        else:
            args.append(_LETTER[item.ending] + item.claim)
    return args


def claim_command(
    layout: Layout, lease: str, queues: Sequence[str], limit: int, slots: int, settle: Sequence[Settlement]
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of the claim script, for whoever sends it by himself."""
    keys = [layout.open, layout.flight(lease), layout.claims]
    head = [lease, limit, slots, layout.prefix, layout.names, layout.sep, layout.priorities, layout.dead_limit]
    return keys, [*head, len(queues), *queues, *endings(settle)]


def publish_command(
    layout: Layout, queue: str, priority: int, payload: Any, publish_id: str
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of the publish script.

    Args:
        publish_id: ``<producer>.<running number>``, or empty.
    """
    producer, _, number = publish_id.rpartition(".")
    keys = [layout.prefix + layout.source(queue, priority), layout.bell(queue), layout.producer(producer, queue)]
    return keys, [payload, number, PUBLISH_MEMORY, int(number) - 1 if number else ""]


def read_batch(lease: str, reply: Any) -> Batch:
    """The claim script's answer as a value."""
    if reply is None:
        return Batch(open=False)
    first, more, *found = reply
    claims = tuple(
        Claim(f"{lease}.{first + index}", _text(source), payload, started == b"1")
        for index, (source, started, payload) in enumerate(zip(*[iter(found)] * 3, strict=True))
    )
    return Batch(claims, tuple(map(_text, more)))


class RedisBroker(Broker, NodeBroker):
    """Synchronous calls on one Redis client.

    Args:
        client: a ``redis.Redis`` that returns bytes. Every call may be repeated, so it may retry.
        layout: names of the keys.

    Raises:
        StoreUnavailable: the server could not be reached in time; the call may have happened.
    """

    def __init__(self, client: Any, layout: Layout) -> None:
        self.client = client
        self.layout = layout

    def _run(self, script: Script, keys: list[str], args: list[Any]) -> Any:
        return self._reached(lambda: script(self.client, keys, args))

    @staticmethod
    def _reached(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (RedisConnectionError, RedisTimeoutError, OSError) as exc:
            raise StoreUnavailable(f"the broker could not be reached: {exc!r}") from exc
        except ResponseError as exc:
            if not_now(exc):
                raise StoreUnavailable(f"the broker cannot write now: {exc}") from exc
            raise

    def join(self, lease: str) -> bool:
        names = self.layout
        return bool(self._run(JOIN, [names.open, names.tombstone(lease), names.owners], [lease]))

    def publish(self, queue: str, payload: bytes, *, priority: int = 0, publish_id: str | None = None) -> bool:
        keys, args = publish_command(self.layout, queue, priority, payload, publish_id or "")
        return bool(self._run(PUBLISH, keys, args))

    def claim(
        self, lease: str, queues: Sequence[str], *, limit: int, slots: int, settle: Sequence[Settlement] = ()
    ) -> Batch:
        keys, args = claim_command(self.layout, lease, queues, limit, slots, settle)
        return read_batch(lease, self._run(CLAIM, keys, args))

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        names = self.layout
        args = [lease, claim, names.prefix, names.names, names.sep, names.dead_limit, *endings(settle)]
        return bool(self._run(START, [names.open, names.flight(lease)], args))

    def settle(self, lease: str, settle: Sequence[Settlement]) -> bool:
        names = self.layout
        args = [lease, names.prefix, names.names, names.sep, names.dead_limit, *endings(settle)]
        return bool(self._run(SETTLE, [names.open, names.flight(lease)], args))

    def held(self, lease: str) -> dict[str, bool]:
        reply = self._run(HELD, [self.layout.flight(lease)], [])
        return {_text(claim): started == b"1" for claim, started in zip(*[iter(reply)] * 2, strict=True)}

    def holds(self, lease: str, claim: str) -> bool:
        names = self.layout
        pipe = self.client.pipeline(transaction=True)
        pipe.hexists(names.open, lease)
        pipe.hexists(names.flight(lease), claim)
        return all(self._reached(pipe.execute))

    def leave(self, lease: str) -> bool:
        names = self.layout
        return bool(self._run(LEAVE, [names.open, names.flight(lease), names.owners], [lease]))

    def fence(self, lease: str) -> None:
        self._run(FENCE, [self.layout.open, self.layout.tombstone(lease)], [lease, TOMBSTONE])

    def in_flight(self, lease: str) -> list[Claim]:
        records = self._reached(lambda: self.client.hgetall(self.layout.flight(lease)))
        claims = [read_claim(_text(claim), record) for claim, record in records.items()]
        return sorted(claims, key=lambda claim: claim.number)

    def requeue(self, claims: Iterable[tuple[Claim, bytes]]) -> int:
        newest_first = sorted(claims, key=lambda item: item[0].number, reverse=True)
        names = self.layout
        head = [names.prefix, names.names, names.sep]
        return sum(int(self._run(REQUEUE, [names.open], [*head, *_triples(chunk)])) for chunk in _chunks(newest_first))

    def forget(self, lease: str) -> bool:
        return bool(self._run(FORGET, [self.layout.flight(lease), self.layout.owners], [lease]))

    def strangers(self, known: frozenset[str]) -> frozenset[str]:
        owners = self._reached(lambda: self.client.smembers(self.layout.owners))
        return frozenset(map(_text, owners)) - known

    def queue_of(self, source: str) -> str:
        return self.layout.queue(source)

    def widest(self, queue: str, shards: int) -> int:
        key = f"{self.layout.names}shards"
        self._reached(lambda: self.client.execute_command("ZADD", key, "GT", shards, queue))
        return int(self._reached(lambda: self.client.zscore(key, queue)))


def read_claim(claim: str, record: bytes) -> Claim:
    """Read a frozen record: see ``_record.lua``."""
    head, _, rest = record.partition(b" ")
    length, _, rest = rest.partition(b" ")
    size = int(length)
    return Claim(claim, rest[:size].decode(), rest[size:], head == b"11")


def _triples(chunk: Sequence[tuple[Claim, bytes]]) -> list[Any]:
    return [part for claim, payload in chunk for part in (claim.lease, claim.id, payload)]


def _chunks(items: Sequence[tuple[Claim, bytes]]) -> Iterator[Sequence[tuple[Claim, bytes]]]:
    for at in range(0, len(items), CHUNK):
        yield items[at : at + CHUNK]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
