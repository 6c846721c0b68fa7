"""What becomes of requests whose shard has moved to another worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.worker import state
from kombu.utils.limits import TokenBucket

from celery_ha.worker.consumer import Consumer
from celery_ha.worker.gate import Gate


class Request:
    def __init__(self, claim: str, qos: Any) -> None:
        self.id = self.name = claim
        self.message = SimpleNamespace(delivery_tag=claim, channel=SimpleNamespace(qos=qos))


def test_credit_of_what_waits_for_a_rate_limit_is_free_when_its_shard_moves() -> None:
    """It waited for the limit otherwise, minutes perhaps, and the worker took nothing else meanwhile."""
    # Given a bucket with messages of a shard that moves and of one that stays
    dropped: list[str] = []
    qos = SimpleNamespace(drop=dropped.append)
    bucket = TokenBucket(0.01)
    moves, stays = Request("L.1", qos), Request("L.2", qos)
    for request in (moves, stays):
        bucket.add((request, 1))
    claims = SimpleNamespace(give_back_idle=lambda _queues: ("L.1",))
    node: Any = SimpleNamespace(claims=claims)
    consumer: Any = SimpleNamespace(node=node, gate=Gate(node), task_buckets={"t": bucket, "free": None})
    # When it moves
    Consumer._let_go(consumer, frozenset({"orders.1"}))
    # Then its message waits here no longer
    assert dropped == ["L.1"]
    assert [request for request, _ in bucket.contents] == [stays]
    assert moves not in state.reserved_requests
