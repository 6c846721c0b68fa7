"""Where calls go: shards by key, and everything else left where Celery would send it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.beat import ScheduleEntry, Scheduler
from celery.exceptions import QueueNotFound, Reject, Retry
from celery.worker.request import Request
from kombu import Exchange, Queue, pools
from kombu.transport.memory import Channel, Transport

from celery_ha.config import Config
from celery_ha.errors import ConfigError, KeyRefused
from celery_ha.keys import shard_name, shard_of
from celery_ha.routing import key_of_call

SHARDS = 16

# Celery 5.7 would rather have `task_routes` than `@app.task(queue=...)`; both must work.
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")


@pytest.fixture(autouse=True)
def _an_empty_broker() -> Iterator[None]:
    def forget() -> None:
        pools.reset()  # They remember what they declared.
        Channel.queues.clear()
        Channel._expires = {}
        Transport.global_state.clear()

    forget()
    yield
    forget()


def make_app(**settings: Any) -> Celery:
    app = Celery("shop", broker="memory://", backend="cache+memory://", amqp="celery_ha.amqp:AMQP")
    app.conf.update({"ha_queues": {"orders": SHARDS}, "broker_connection_retry": False, **settings})
    return app


@pytest.fixture
def app() -> Celery:
    return make_app()


def shard(key: str) -> str:
    return shard_name("orders", shard_of(key, SHARDS))


def waiting() -> dict[str, int]:
    """Messages by queue."""
    return {name: queue.qsize() for name, queue in Channel.queues.items() if queue.qsize()}


def where(result: Any) -> str:
    """The one queue with a message, after one call."""
    assert result is not None
    (queue,) = waiting()
    return queue


def messages(app: Celery, queue: str) -> Iterator[Any]:
    with app.connection_for_read() as connection:
        bound = app.amqp.queues[queue].bind(connection.channel())
        while (message := bound.get(no_ack=True, accept=["json"])) is not None:
            yield message


def work_off(app: Celery) -> list[tuple[str, str]]:
    """Do what workers do, in this process, until no queue holds anything; tasks run, with their queue."""
    ran = []
    while waiting():
        for queue in waiting():
            for message in messages(app, queue):
                assert "ha_key" not in message.properties
                assert "ha_key" not in message.headers
                ran.append((message.headers["task"], queue))
                request = Request(message, app=app, hostname="w1@here", on_ack=_ignore, on_reject=_ignore)
                request.execute()
    return ran


def _ignore(*_args: Any, **_options: Any) -> None:
    """An acknowledgement that nobody waits for."""


def charging(app: Celery, **options: Any) -> Any:
    """Declare a task on the sharded queue."""

    @app.task(shared=False, name="charge", **{"queue": "orders", "ha_key": "order.{order_id}", **options})
    def charge(order_id: Any, amount: int = 1) -> Any:
        return order_id

    return charge


# How a call's key is found.


@pytest.mark.parametrize("spelling", ["order.{order_id}", "order_id", lambda order_id, amount: f"k{order_id}"])
def test_positional_keyword_and_default_arguments_give_the_same_shard(app: Celery, spelling: Any) -> None:
    charge = charging(app, ha_key=spelling)
    charge.delay(17)
    charge.delay(17, 1)
    charge.delay(order_id=17)
    charge.apply_async((17,), {"amount": 1})
    charge.apply_async(kwargs={"amount": 1, "order_id": 17})
    assert list(waiting().values()) == [5]


def test_template_and_argument_name_and_explicit_key_agree(app: Celery) -> None:
    assert where(charging(app).delay(17)) == shard("order.17")


def test_an_argument_name_is_short_for_a_template_of_it_alone(app: Celery) -> None:
    def body(order_id: Any) -> None: ...

    for value in (17, "17", "a b", None, True, ["x", 1]):
        assert key_of_call("order_id", body, (value,), {}) == key_of_call("{order_id}", body, (value,), {})


def test_explicit_key_of_an_argument_value_goes_where_the_argument_would(app: Celery) -> None:
    charge = charging(app, ha_key="order_id")
    charge.delay(17)
    charge.apply_async((99,), ha_key=17)
    assert list(waiting().values()) == [2]


def test_explicit_key_wins_over_the_declared_one(app: Celery) -> None:
    assert where(charging(app).apply_async((17,), ha_key="vip")) == shard("vip")


def test_explicit_key_without_a_stable_form_is_refused(app: Celery) -> None:
    with pytest.raises(KeyRefused):
        charging(app).apply_async((17,), ha_key=object())
    assert waiting() == {}


def test_argument_without_a_stable_form_is_refused(app: Celery) -> None:
    for value in (object(), repr(object()), {object()}, (number for number in ())):
        with pytest.raises(KeyRefused, match="argument 'order_id'"):
            charging(app).delay(value)
    with pytest.raises(KeyRefused):
        charging(app).apply_async((17,), ha_key=f"order {object()}")
    assert waiting() == {}


def test_bound_task_binds_its_arguments_without_self(app: Celery) -> None:
    @app.task(shared=False, bind=True, queue="orders", ha_key="order.{order_id}")
    def charge(self: Any, order_id: int) -> None: ...

    assert where(charge.delay(17)) == shard("order.17")


def test_task_with_autoretry_keeps_its_signature(app: Celery) -> None:
    @app.task(shared=False, bind=True, queue="orders", ha_key="order.{order_id}", autoretry_for=(OSError,))
    def charge(self: Any, order_id: int) -> None: ...

    assert where(charge.delay(order_id=17)) == shard("order.17")


def test_keyword_collected_by_the_body_can_be_the_key(app: Celery) -> None:
    @app.task(shared=False, queue="orders", ha_key="{region}.{order_id}")
    def charge(order_id: int, **rest: Any) -> None: ...

    assert where(charge.delay(17, region="eu")) == shard("eu.17")


def test_class_based_task_may_define_its_key_as_a_method(app: Celery) -> None:
    class Charge(app.Task):  # type: ignore[name-defined, misc]
        name = "charge"
        queue = "orders"
        prefix = "order"

        def ha_key(self, order_id: int) -> str:
            return f"{self.prefix}.{order_id}"

        def run(self, order_id: int) -> None: ...

    assert where(app.register_task(Charge()).delay(17)) == shard("order.17")


def test_key_that_names_no_argument_is_refused_with_what_to_write(app: Celery) -> None:
    with pytest.raises(ConfigError, match="'order' is no argument of"):
        charging(app, ha_key="order").delay(17)


def test_key_of_a_wrong_type_is_refused_with_what_to_write(app: Celery) -> None:
    with pytest.raises(ConfigError, match="ha_key of task charge is 7; write"):
        charging(app, ha_key=7).delay(17)


@pytest.mark.parametrize("options", [{"ha_key": None}, {"ha_key": lambda order_id, amount: None}])
def test_calls_without_a_key_are_spread(app: Celery, options: dict[str, Any]) -> None:
    charge = charging(app, **options)
    for _ in range(40 * SHARDS):
        charge.delay(17)
    assert waiting().keys() == {shard_name("orders", index) for index in range(SHARDS)}
    assert max(waiting().values()) < 3 * 40


def test_arguments_that_do_not_fit_are_left_to_the_worker_to_refuse(app: Celery) -> None:
    charging(app)
    assert where(app.send_task("charge", (1, 2, 3), queue="orders")).startswith("orders.")


# Which calls are sharded at all.


def test_router_leaves_an_explicit_queue_alone(app: Celery) -> None:
    assert where(charging(app).apply_async((17,), queue="slow", ha_key="vip")) == "slow"


def test_router_leaves_an_explicit_queue_object_alone(app: Celery) -> None:
    assert where(charging(app).apply_async((17,), queue=Queue("slow", Exchange("slow"), "slow"))) == "slow"


def test_router_leaves_an_explicit_shard_alone(app: Celery) -> None:
    elsewhere = shard_name("orders", (shard_of("order.17", SHARDS) + 1) % SHARDS)
    assert where(charging(app).apply_async((17,), queue=elsewhere)) == elsewhere


def test_router_leaves_an_explicit_shard_alone_even_beside_a_key(app: Celery) -> None:
    assert where(charging(app).apply_async((17,), queue="orders.3", ha_key="vip")) == "orders.3"


def test_router_leaves_an_explicit_exchange_alone(app: Celery) -> None:
    options = {"exchange": "audit", "routing_key": "orders.created", "exchange_type": "topic"}
    routed = app.amqp.router.route({"queue": "orders", **options}, "charge")
    assert routed == {"queue": app.amqp.queues["orders"], **options}


def test_router_leaves_a_task_without_a_sharded_queue_alone(app: Celery) -> None:
    @app.task(shared=False)
    def plain() -> None: ...

    assert where(plain.apply_async(ha_key="vip")) == "celery"


def test_default_queue_can_be_sharded() -> None:
    app = make_app(ha_queues={"celery": 4})

    @app.task(shared=False)
    def plain() -> None: ...

    assert where(plain.apply_async(ha_key="vip")) == shard_name("celery", shard_of("vip", 4))


def test_app_without_sharded_queues_routes_as_celery_does() -> None:
    app = make_app(ha_queues={})
    assert list(app.amqp.queues.consume_from) == ["celery"]
    assert where(charging(app).apply_async((17,), ha_key="vip")) == "orders"


@pytest.mark.parametrize(
    "routes",
    [
        {"charge": {"queue": "orders"}},
        {"char*": "orders"},
        [lambda name, args, kwargs, options, task=None, **kw: {"queue": "orders"} if name == "charge" else None],
    ],
)
def test_queue_from_the_users_routes_is_sharded(routes: Any) -> None:
    app = make_app(task_routes=routes)
    assert where(charging(app, queue=None).delay(17)) == shard("order.17")


def test_key_from_the_users_routes_is_used() -> None:
    app = make_app(task_routes={"charge": {"queue": "orders", "ha_key": "vip"}})
    assert where(charging(app, queue=None).delay(17)) == shard("vip")


def test_routing_key_of_the_base_queue_does_not_outlive_the_step_to_a_shard(app: Celery) -> None:
    assert where(charging(app, routing_key="orders").delay(17)) == shard("order.17")


# By every way of calling.


def test_send_task_of_a_registered_task_uses_its_key(app: Celery) -> None:
    charging(app)
    assert where(app.send_task("charge", (17,), queue="orders")) == shard("order.17")


def test_send_task_without_a_registered_task_uses_an_explicit_key(app: Celery) -> None:
    assert where(app.send_task("elsewhere.charge", (17,), queue="orders", ha_key="order.17")) == shard("order.17")


def test_send_task_without_any_key_is_spread(app: Celery) -> None:
    assert where(app.send_task("elsewhere.charge", queue="orders")).startswith("orders.")


def test_send_task_without_autofinalize_does_not_finalize() -> None:
    app = Celery("shop", broker="memory://", amqp="celery_ha.amqp:AMQP", autofinalize=False)
    app.conf.ha_queues = {"orders": SHARDS}
    assert where(app.send_task("elsewhere.charge", queue="orders", ha_key="vip")) == shard("vip")
    assert not app.finalized


def test_eager_call_ignores_the_key() -> None:
    app = make_app(task_always_eager=True)
    assert charging(app).apply_async((17,), ha_key="vip").get() == 17
    assert waiting() == {}


def test_chain_sends_each_step_to_the_shard_of_its_own_key(app: Celery) -> None:
    charge = charging(app)
    first, second = charge.si(1), charge.si(2).set(ha_key="vip")
    chain(first, second, charge.s()).apply_async()
    assert work_off(app) == [("charge", shard("order.1")), ("charge", shard("vip")), ("charge", shard("order.2"))]


def test_group_sends_each_member_to_its_shard(app: Celery) -> None:
    charge = charging(app)
    group(charge.s(n) for n in range(8)).apply_async()
    assert waiting() == dict(Counter(shard(f"order.{n}") for n in range(8)))


def test_key_given_to_a_whole_group_reaches_every_member(app: Celery) -> None:
    charge = charging(app)
    group(charge.s(n) for n in range(8)).apply_async(ha_key="vip")
    assert waiting() == {shard("vip"): 8}


def test_chord_sends_header_and_body_to_their_shards(app: Celery) -> None:
    charge = charging(app)

    @app.task(shared=False, name="total", queue="orders", ha_key="total.{label}")
    def total(amounts: list[int], label: str) -> int:
        return sum(amounts)

    result = chord([charge.s(n) for n in (1, 2, 3)], total.s("eu").set(ha_key="body")).apply_async()
    ran = [step for step in work_off(app) if step[0] != "celery.chord_unlock"]

    assert sorted(ran[:-1]) == sorted(("charge", shard(f"order.{n}")) for n in (1, 2, 3))
    assert ran[-1] == ("total", shard("body"))
    assert result.get(timeout=1) == 6


def test_callbacks_go_to_their_shards(app: Celery) -> None:
    charge = charging(app)
    charge.apply_async((1,), link=charge.si(2), link_error=charge.si(3).set(ha_key="vip"))
    assert work_off(app) == [("charge", shard("order.1")), ("charge", shard("order.2"))]


@pytest.mark.parametrize("registered", [True, False])
def test_beat_entry_goes_to_the_shard_of_its_key(app: Celery, registered: bool) -> None:
    if registered:
        charging(app)
    scheduler = Scheduler(app, lazy=True)
    entry = ScheduleEntry("nightly", "charge", args=(17,), options={"queue": "orders", "ha_key": "vip"}, app=app)
    assert where(scheduler.apply_async(entry, advance=False)) == shard("vip")


def test_beat_entry_without_options_uses_the_tasks_key(app: Celery) -> None:
    charging(app)
    entry = ScheduleEntry("nightly", "charge", args=(17,), app=app)
    assert where(Scheduler(app, lazy=True).apply_async(entry, advance=False)) == shard("order.17")


def test_retry_goes_to_the_same_shard(app: Celery) -> None:
    tries: list[str] = []

    @app.task(shared=False, bind=True, name="charge", queue="orders", ha_key="order.{order_id}")
    def charge(self: Any, order_id: int) -> None:
        tries.append(self.request.delivery_info["routing_key"])
        if len(tries) < 3:
            raise self.retry(countdown=0)

    charge.apply_async((17,), ha_key="vip")
    assert work_off(app) == [("charge", shard("vip"))] * 3
    assert tries == [shard("vip")] * 3


def retry_of_a_message_from(app: Celery, exchange: str, routing_key: str) -> str:
    """Where a retry goes whose first attempt came by this exchange and routing key."""
    charge = charging(app, bind=False)
    info = {"exchange": exchange, "routing_key": routing_key, "priority": 0, "redelivered": False}
    charge.push_request(id="one", args=[17], kwargs={}, called_directly=False, delivery_info=info, retries=0)
    try:
        with pytest.raises(Retry):
            charge.retry(countdown=0)
    except Reject:  # pragma: no cover - what retry raises when it cannot publish
        pytest.fail("the retry could not be published")
    finally:
        charge.pop_request()
    return where(charge)


DELAY = "0." * 26 + "1.1."


@pytest.mark.parametrize(
    ("exchange", "routing_key"),
    [
        ("", "orders.3"),
        ("orders", "orders.3"),
        ("orders", DELAY + "orders.3"),
        ("celery_delayed_27", DELAY + "orders.3"),
        ("celery_delayed_delivery", DELAY + "orders.3"),
        ("eu_celery_delayed_delivery", DELAY + "orders.3"),
    ],
)
@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_retry_on_any_exchange_goes_back_to_its_shard(exchange: str, routing_key: str, kind: str) -> None:
    app = make_app(task_create_missing_queue_exchange_type=kind)
    assert retry_of_a_message_from(app, exchange, routing_key) == "orders.3"


def test_retry_of_a_message_from_the_base_queue_goes_to_its_keys_shard(app: Celery) -> None:
    assert retry_of_a_message_from(app, "orders", "orders") == shard("order.17")


def test_retry_from_a_shard_beyond_the_present_number_goes_back_there() -> None:
    app = make_app(task_create_missing_queues=False)
    assert retry_of_a_message_from(app, "", f"orders.{SHARDS + 5}") == f"orders.{SHARDS + 5}"


def test_routing_key_that_only_looks_like_a_shard_on_a_users_exchange_is_left_alone(app: Celery) -> None:
    options = {"exchange": "audit", "routing_key": "orders.3", "exchange_type": "topic"}
    assert app.amqp.router.route(dict(options), "charge") == {"queue": app.amqp.queues["celery"], **options}


# What is declared, and what a worker consumes.


def test_worker_consumes_no_shard_just_because_it_is_declared(app: Celery) -> None:
    assert set(app.amqp.queues.consume_from) == {"celery", "orders"}
    assert len(app.amqp.queues) == SHARDS + 2


def test_worker_with_a_selection_consumes_just_that(app: Celery) -> None:
    app.amqp.queues.select(["orders"])
    assert set(app.amqp.queues.consume_from) == {"orders"}


def test_worker_that_excludes_a_queue_does_not_start_consuming_shards(app: Celery) -> None:
    app.amqp.queues.deselect(["celery"])
    assert set(app.amqp.queues.consume_from) == {"orders"}


def test_shard_taken_over_at_run_time_is_consumed_until_it_is_given_away(app: Celery) -> None:
    queues = app.amqp.queues
    queues.select_add(queues["orders.3"])
    assert set(queues.consume_from) == {"celery", "orders", "orders.3"}
    queues.deselect("orders.3")
    assert set(queues.consume_from) == {"celery", "orders"}


def test_missing_queue_a_producer_creates_is_not_consumed(app: Celery) -> None:
    charging(app).apply_async((17,), queue="slow")
    assert set(app.amqp.queues.consume_from) == {"celery", "orders"}


def test_users_own_queues_are_all_consumed_and_the_base_is_not_declared_twice() -> None:
    own = Queue("orders", Exchange("shop"), "orders", queue_arguments={"x-max-priority": 5})
    queues = [own, Queue("mail", Exchange("shop"), "mail")]
    app = make_app(task_queues=queues, task_default_queue="mail", task_create_missing_queues=False)
    assert list(app.amqp.queues.consume_from) == ["orders", "mail"]
    assert app.amqp.queues["orders"] is own
    shard = app.amqp.queues["orders.3"]
    assert (shard.exchange.name, shard.routing_key, shard.queue_arguments) == (
        "shop",
        "orders.3",
        {"x-max-priority": 5},
    )
    assert shard.queue_arguments is not own.queue_arguments
    assert where(charging(app).delay(17)).startswith("orders.")


def test_sharded_queue_needs_no_declaration_even_where_missing_queues_are_refused() -> None:
    app = make_app(task_create_missing_queues=False)
    charge = charging(app)
    assert where(charge.delay(17)) == shard("order.17")
    with pytest.raises(QueueNotFound):
        charge.apply_async((17,), queue="slow")


def test_shards_of_a_queue_bound_by_a_pattern_get_an_exchange_of_their_own() -> None:
    app = make_app(task_queues=[Queue("orders", Exchange("shop", "topic"), "orders.#")])
    exchange = app.amqp.queues["orders.3"].exchange
    assert (exchange.name, exchange.type) == ("orders.shards", "topic")


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_shards_are_declared_as_missing_queues_are(kind: str) -> None:
    app = make_app(task_create_missing_queue_exchange_type=kind, task_create_missing_queue_type="quorum")
    for name in ("orders", "orders.3"):
        queue = app.amqp.queues[name]
        assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == ("orders", kind, name)
        assert queue.queue_arguments == {"x-queue-type": "quorum"}


def test_message_on_a_topic_exchange_reaches_its_shard_alone() -> None:
    app = make_app(task_create_missing_queue_exchange_type="topic")
    assert where(charging(app).delay(17)) == shard("order.17")
    assert waiting() == {shard("order.17"): 1}


def test_priority_of_all_queues_reaches_the_shards() -> None:
    app = make_app(task_queue_max_priority=9)
    assert app.amqp.queues["orders.3"].queue_arguments == {"x-max-priority": 9}


def test_queues_sharded_after_the_first_publish_are_routed_from_then_on(app: Celery) -> None:
    charge = charging(app)
    charge.delay(17)
    app.conf.update(ha_queues={"orders": SHARDS, "mail": 4})
    assert set(app.amqp.queues.consume_from) == {"celery", "orders", "mail"}
    routed = app.amqp.router.route({"queue": "mail", "ha_key": "a"}, "send")
    assert routed["queue"].name == shard_name("mail", shard_of("a", 4))


def test_other_settings_changed_later_change_no_queue(app: Celery) -> None:
    queues = dict(app.amqp.queues)
    app.conf.update(task_routes={"charge": "orders"}, ha_lease_ttl=20)
    assert dict(app.amqp.queues) == queues
    assert app.amqp.router.route({}, "charge")["queue"].name.startswith("orders.")


def test_setting_that_cannot_be_used_is_refused_at_first_use() -> None:
    with pytest.raises(ConfigError, match="write ha_queues"):
        _ = make_app(ha_queue={"mail": 3}).amqp.queues


def test_shard_names_of_the_largest_number_of_shards_can_be_declared() -> None:
    assert len(make_app(ha_queues={"orders": 4096}).amqp.queues) == 4098
    assert Config(queues={"orders": 4096}).queues == {"orders": 4096}
