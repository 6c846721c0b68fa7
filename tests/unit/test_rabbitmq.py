"""What an app on RabbitMQ is set to, which delays it may ask for, and who is second in line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import kombu
import pytest
from celery import Celery

from celery_ha import HA
from celery_ha.delays import lasting
from celery_ha.errors import ConfigError
from celery_ha.model import Node
from celery_ha.rabbitmq import NEVER_DROP, make_quorum, on_priorities
from celery_ha.rings import following
from celery_ha.worker.shards import owned_shards, standby_shards

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": NEVER_DROP}


def app_on(url: str, **settings: object) -> Celery:
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(settings)
    HA(app)
    return app


def test_every_queue_is_a_quorum_queue_and_a_shard_has_one_consumer():
    app = app_on("amqp://localhost//", ha_queues={"orders": 2}, ha_lease_ttl=10.0)
    queues = app.amqp.queues
    assert queues["celery"].queue_arguments == queues["made.later"].queue_arguments == QUORUM
    assert queues["orders"].queue_arguments == QUORUM
    assert queues["orders.1"].queue_arguments == {**QUORUM, "x-single-active-consumer": True}
    assert {queues[name].exchange.type for name in ("celery", "orders", "orders.1", "made.later")} == {"topic"}
    assert app.conf.broker_heartbeat == 4


def test_redis_is_declared_as_before():
    app = app_on("redis://localhost//", ha_queues={"orders": 2})
    assert not app.amqp.queues["orders.1"].queue_arguments
    assert app.amqp.queues["celery"].exchange.type == "direct"
    assert app.conf.broker_heartbeat == 120


def test_what_the_user_has_set_stays():
    app = app_on("amqp://localhost//", broker_heartbeat=30, task_default_exchange_type="direct")
    assert app.conf.broker_heartbeat == 30
    assert app.amqp.queues["celery"].exchange.type == "direct"


@pytest.mark.parametrize(
    "options",
    [
        {"queue_arguments": {"x-queue-type": "classic"}},
        {"queue_arguments": {"x-max-priority": 9}},
        {"durable": False},
        {"exclusive": True},
        {"auto_delete": True},
    ],
)
def test_queue_that_can_be_no_quorum_queue_is_left_alone(options):
    queue = kombu.Queue("q", **options)
    before = dict(queue.queue_arguments or {})
    make_quorum(queue, single=True)
    assert dict(queue.queue_arguments or {}) == before


def test_queue_cannot_be_a_quorum_queue_with_priorities_and_says_what_to_write():
    queue = kombu.Queue("q", queue_arguments={"x-queue-type": "quorum", "x-max-priority": 9})
    with pytest.raises(ConfigError, match="leave x-max-priority out"):
        make_quorum(queue)


def test_publishes_without_confirms_are_refused_by_the_first_use_of_a_queue():
    app = app_on("amqp://localhost//", broker_transport_options={"confirm_publish": False})
    with pytest.raises(ConfigError, match='leave "confirm_publish" out'):
        app.send_task("any")


def test_publishes_with_confirms_and_those_of_redis_are_as_before():
    assert app_on("amqp://localhost//", broker_transport_options={"confirm_publish": True}).amqp.queues
    assert app_on("redis://localhost//", broker_transport_options={"confirm_publish": False}).amqp.queues


def test_priorities_for_every_queue_make_classic_queues_of_all():
    app = app_on("amqp://localhost//", ha_queues={"orders": 2}, task_queue_max_priority=9)
    queues = app.amqp.queues
    for name in ("celery", "orders.1", "made.later"):
        assert queues[name].queue_arguments == {"x-max-priority": 9}
        assert queues[name].exchange.type == "topic"


RANKED = kombu.Queue("ranked", queue_arguments={"x-max-priority": 9})
OTHER = kombu.Queue("other", queue_arguments=dict(QUORUM))


@pytest.mark.parametrize(
    ("queues", "wanted", "version", "told"),
    [
        ([OTHER], False, "3.10.8", []),
        ([OTHER], True, "3.10.8", ["queue other is without priorities"]),
        ([OTHER], True, "4.1.0", ["queue other is of two priorities"]),
        ([OTHER], True, "", ["queue other is without priorities"]),
        ([RANKED], True, "4.1.0", ["queue ranked is classic"]),
        ([RANKED, OTHER], True, "3.10.8", ["queue ranked is classic", "queue other is without priorities"]),
    ],
)
def test_user_who_wants_priorities_is_told_what_becomes_of_them(queues, wanted, version, told):
    found = on_priorities(queues, wanted=wanted, version=version)
    assert len(found) == len(told)
    assert all(sentence.startswith(beginning) for sentence, beginning in zip(found, told, strict=True))


def test_delay_of_less_than_a_second_is_one_of_a_second():
    sent: list[dict[str, object]] = []

    def send_task(name: str, countdown: float | None = None, eta: datetime | None = None, **options: object) -> None:
        sent.append({"countdown": countdown, "eta": eta})

    send = lasting(send_task, lambda: True)
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    send("t", countdown=0.2)
    send("t", countdown=2.5)
    send("t")
    send("t", eta=soon)
    lasting(send_task, lambda: False)("t", countdown=0.2)
    assert [call["countdown"] for call in sent] == [1, 2.5, None, None, 0.2]
    assert sent[3]["eta"] > soon


def test_whoever_is_second_in_line_for_a_shard_owns_it_when_its_owner_is_gone():
    queues = {"orders": 64}
    nodes = [Node(f"l{at}", f"w{at}@host", 2, ("orders",), shards=tuple(queues.items())) for at in range(4)]
    lines = {node.name: standby_shards(node.name, queues, nodes) for node in nodes}
    # Every shard of everybody has exactly one second
    seconds = [shard for line in lines.values() for shard in line]
    assert sorted(seconds) == sorted(set(seconds))
    assert len(seconds) == 64
    # And that is its heir
    rest, last = [node for node in nodes if node.name != "w0@host"], following(nodes, {})
    for node in rest:
        inherited = {shard for shard, owner in lines[node.name].items() if owner == "w0@host"}
        assert inherited <= owned_shards(node.name, queues, rest, last)


def test_who_is_alone_is_second_to_nobody():
    assert standby_shards("w0@host", {"orders": 8}, [Node("l0", "w0@host", 2, ("orders",))]) == {}
