"""``HA(app)`` in the ways people make their apps."""

from __future__ import annotations

import types
from typing import Any

import pytest
from celery import Celery, shared_task

import celery_ha
from celery_ha import HA, ConfigError
from celery_ha.install import CONSUMER


def make_app(**conf: Any) -> Celery:
    app = Celery("shop", broker="redis://localhost:1/0", set_as_current=False)
    app.conf.update(conf)
    return app


def test_settings_given_after_installing_count() -> None:
    app = make_app()
    HA(app)
    app.conf.ha_queues = {"orders": 4}
    app.conf.ha_lease_ttl = 5
    assert app.ha.config.queues == {"orders": 4}
    assert app.amqp.queues["orders.3"].routing_key == "orders.3"


def test_settings_of_a_config_object_count() -> None:
    app = make_app()
    HA(app)
    app.config_from_object(types.SimpleNamespace(ha_queues={"orders": 2}, ha_lease_ttl=7))
    assert app.ha.config.lease_ttl == 7


def test_settings_of_a_namespace_count() -> None:
    app = make_app()
    HA(app)
    app.config_from_object(types.SimpleNamespace(CELERY_HA_QUEUES={"orders": 2}), namespace="CELERY")
    assert app.ha.config.queues == {"orders": 2}


def test_misspelt_setting_is_refused_when_the_app_is_finalised() -> None:
    app = make_app(ha_lease_tll=5)
    HA(app)
    with pytest.raises(ConfigError, match="write ha_lease_ttl"):
        app.finalize()


def test_defaults_are_changed_before_a_worker_reads_them() -> None:
    app = make_app()
    HA(app)
    assert app.conf.worker_consumer == CONSUMER
    assert app.conf.task_acks_late is True
    assert app.conf.worker_prefetch_multiplier == 1


def test_what_the_user_set_stays() -> None:
    app = make_app(worker_prefetch_multiplier=8, task_acks_late=False)
    HA(app)
    assert app.conf.worker_prefetch_multiplier == 8
    assert app.conf.task_acks_late is False
    assert app.ha.changed.keys().isdisjoint({"worker_prefetch_multiplier", "task_acks_late"})


def test_defaults_are_left_alone_when_told_so() -> None:
    app = make_app(ha_defaults=False)
    HA(app)
    assert app.conf.task_acks_late is False


def test_second_installation_in_one_app_is_refused() -> None:
    app = make_app()
    HA(app)
    with pytest.raises(ConfigError, match="before"):
        HA(app)


def test_factory_installs_later() -> None:
    ha = HA()
    app = make_app()
    ha.init_app(app)
    assert app.ha is ha


def test_shared_task_is_routed_by_its_key() -> None:
    @shared_task(name="shared.charge", ha_key="order.{order_id}", queue="orders")
    def charge(order_id: int) -> None: ...

    app = make_app(ha_queues={"orders": 8})
    HA(app)
    options = app.amqp.router.route({"queue": "orders"}, "shared.charge", (7,), {}, app.tasks["shared.charge"])
    assert options["queue"].name.startswith("orders.")


def test_broker_of_another_kind_is_refused_with_what_to_write() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    HA(app)
    with pytest.raises(ConfigError, match="redis://"):
        _ = app.ha.store


def test_every_public_name_is_exported_from_one_of_our_modules() -> None:
    for name in celery_ha.__all__:
        assert getattr(celery_ha, name).__module__.startswith("celery_ha")
