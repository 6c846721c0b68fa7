"""What the settings accept, what they refuse, and where in an app they are found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_ha.appconf import CELERY_DEFAULTS, defaults_for, found, is_set, read
from celery_ha.config import Config, names
from celery_ha.errors import ConfigError


def refusal(**settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_conf(settings)
    return str(caught.value)


def test_nothing_set_gives_the_documented_defaults() -> None:
    config = Config.from_conf({})

    assert config == Config()
    assert config.queues == {}
    assert config.store is None
    assert config.prefix == "_ha:"
    assert (config.lease_ttl, config.trust_margin, config.renew_every, config.store_timeout) == (10.0, 1.0, 2.5, 2.5)
    assert (config.look_every, config.confirm_after) == (0.25, 0.5)
    assert (config.wedged_after, config.lock_inherit) == (60.0, 60.0)
    assert (config.max_deliveries, config.dead_letters_max, config.defaults) == (3, 10_000, True)


@pytest.mark.parametrize(("ttl", "margin", "renew"), [(1, 0.2, 0.25), (2, 0.2, 0.5), (40, 4.0, 10.0)])
def test_derived_defaults_follow_the_ttl(ttl: float, margin: float, renew: float) -> None:
    config = Config.from_conf({"ha_lease_ttl": ttl})

    assert (config.lease_ttl, config.trust_margin, config.renew_every) == (ttl, margin, renew)


def test_whole_seconds_become_floats() -> None:
    assert isinstance(Config.from_conf({"ha_lease_ttl": 8}).lease_ttl, float)


def test_changing_the_settings_later_does_not_change_the_config() -> None:
    queues = {"orders": 4}
    config = Config.from_conf({"ha_queues": queues})
    queues["orders"] = 5
    assert config.queues == {"orders": 4}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("ha_queue", "ha_queues"), ("ha_lease_tll", "ha_lease_ttl"), ("ha_deliveries_max", "ha_max_deliveries")],
)
def test_a_misspelt_setting_is_refused_with_the_nearest_right_name(wrong: str, right: str) -> None:
    assert refusal(**{wrong: 1}) == f"there is no setting {wrong}; write {right}"


def test_an_unknown_setting_without_a_near_name_lists_all_of_them() -> None:
    message = refusal(ha_zzzzzzzzz=1)
    assert all(name in message for name in names())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ha_lease_ttl", "10"),
        ("ha_lease_ttl", 0),
        ("ha_lease_ttl", True),
        ("ha_look_every", -1),
        ("ha_look_every", float("nan")),
        ("ha_wedged_after", float("inf")),
        ("ha_max_deliveries", 0),
        ("ha_max_deliveries", 2.5),
        ("ha_dead_letters_max", None),
        ("ha_dead_letters_ttl", 0),
        ("ha_defaults", "yes"),
        ("ha_prefix", ""),
        ("ha_prefix", "my app:"),
        ("ha_store", "localhost"),
        ("ha_store", "h1:2181,h2:2181"),
        ("ha_queues", ["orders"]),
        ("ha_queues", {"orders": 0}),
        ("ha_queues", {"orders": 4097}),
        ("ha_queues", {"orders": True}),
        ("ha_queues", {"": 4}),
        ("ha_queues", {7: 4}),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_to_write(name: str, value: object) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name} is ")
    assert "; write " in message


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"ha_trust_margin": 10}, "write a margin of at most 5"),
        ({"ha_renew_every": 5}, "write at most 2.5"),
        ({"ha_lease_ttl": 4, "ha_renew_every": 2.5}, "an ha_lease_ttl above 5"),
        ({"ha_store_timeout": 8}, "write an ha_store_timeout of 2.5"),
        ({"ha_look_every": 0.5}, "write at least 1"),
        ({"ha_confirm_after": 0.3}, "write at least 0.5"),
        ({"ha_look_every": 6, "ha_confirm_after": 20}, "write at most 2.5"),
        ({"ha_wedged_after": 5}, "write at least 10"),
        ({"ha_queues": {"orders": 4, "orders.3": 2}}, "give that queue another name"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_what_to_write(
    settings: dict[str, object], advice: str
) -> None:
    assert advice in refusal(**settings)


@pytest.mark.parametrize("ttl", [0.5, 0.8, 1, 3, 10, 100])
def test_what_a_contradiction_advises_is_accepted(ttl: float) -> None:
    config = Config.from_conf({"ha_lease_ttl": ttl, "ha_wedged_after": 100})
    assert Config.from_conf({f"ha_{name}": getattr(config, name) for name in vars(config)}) == config


def test_every_setting_is_documented_with_its_unit_and_default() -> None:
    import inspect

    source = inspect.getsource(Config)
    for name in names():
        comment = source.split(f"    {name.removeprefix('ha_')}: ")[0].rsplit("\n\n", 1)[1]
        assert comment.lstrip().startswith("#:"), name
        assert "default" in comment, name


# Where in an app the settings are found.


def test_settings_assigned_to_conf_are_found() -> None:
    app = Celery("shop")
    app.conf.ha_queues = {"orders": 8}
    app.conf.update(ha_lease_ttl=4)
    assert found(app.conf) == {"ha_queues": {"orders": 8}, "ha_lease_ttl": 4}
    assert read(app).queues == {"orders": 8}


def test_settings_changed_after_the_app_is_configured_are_found() -> None:
    app = Celery("shop")
    assert read(app).queues == {}
    app.conf.ha_queues = {"orders": 8}
    assert read(app).queues == {"orders": 8}


def test_settings_of_a_config_object_are_found() -> None:
    app = Celery("shop")
    app.config_from_object(SimpleNamespace(ha_queues={"orders": 8}, task_acks_late=True))
    assert found(app.conf) == {"ha_queues": {"orders": 8}}


def test_settings_of_a_config_mapping_are_found() -> None:
    app = Celery("shop")
    app.config_from_object({"ha_queues": {"orders": 8}})
    assert read(app).queues == {"orders": 8}


def test_settings_under_a_namespace_are_found() -> None:
    app = Celery("shop")
    app.config_from_object(
        SimpleNamespace(CELERY_HA_QUEUES={"orders": 8}, CELERY_HA_LEASE_TTL=4, HA_PROXY="10"), namespace="CELERY"
    )
    assert found(app.conf) == {"ha_queues": {"orders": 8}, "ha_lease_ttl": 4}


def test_settings_under_a_namespace_of_the_users_own_are_found() -> None:
    app = Celery("shop")
    app.config_from_object(SimpleNamespace(JOBS_HA_LEASE_TTL=4, CELERY_HA_LEASE_TTL=7), namespace="JOBS_")
    assert found(app.conf) == {"ha_lease_ttl": 4}


def test_a_misspelt_setting_under_a_namespace_is_refused() -> None:
    app = Celery("shop")
    app.config_from_object(SimpleNamespace(CELERY_HA_QUEUE={"orders": 8}), namespace="CELERY")
    with pytest.raises(ConfigError, match="write ha_queues"):
        read(app)


def test_conf_wins_over_the_config_object() -> None:
    app = Celery("shop")
    app.config_from_object(SimpleNamespace(CELERY_HA_LEASE_TTL=4), namespace="CELERY")
    app.conf.ha_lease_ttl = 5
    assert read(app).lease_ttl == 5.0


@pytest.mark.parametrize("name", ["CELERY_HA_LEASE_TTL", "HA_LEASE_TTL"])
def test_upper_case_settings_of_an_old_style_config_are_found(name: str) -> None:
    app = Celery("shop")
    app.config_from_object(SimpleNamespace(BROKER_URL="memory://", CELERY_ACKS_LATE=True, HA_PROXY=1, **{name: 4}))
    assert found(app.conf) == {"ha_lease_ttl": 4}


# Which of Celery's defaults change.


def configured(**settings: Any) -> Celery:
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings)
    return app


def test_all_defaults_change_when_nothing_is_set() -> None:
    app = configured()
    assert defaults_for(read(app), app.conf) == CELERY_DEFAULTS


def test_a_default_the_user_set_is_left_alone() -> None:
    app = configured(task_acks_late=False, worker_prefetch_multiplier=4)
    changed = defaults_for(read(app), app.conf)
    assert changed.keys() == CELERY_DEFAULTS.keys() - {"task_acks_late", "worker_prefetch_multiplier"}


def test_no_default_changes_when_they_are_switched_off() -> None:
    app = configured(ha_defaults=False)
    assert defaults_for(read(app), app.conf) == {}


@pytest.mark.parametrize(
    ("settings", "namespace"),
    [
        ({"CELERY_TASK_ACKS_LATE": False}, "CELERY"),
        ({"CELERY_ACKS_LATE": False, "BROKER_URL": "memory://"}, None),
        ({"task_acks_late": False}, None),
    ],
)
def test_a_default_set_in_a_config_object_is_left_alone_however_it_is_spelt(
    settings: dict[str, object], namespace: str | None
) -> None:
    app = Celery("shop", set_as_current=False)
    app.config_from_object(SimpleNamespace(**settings), namespace=namespace)
    assert is_set(app.conf, "task_acks_late")
    assert not is_set(app.conf, "worker_prefetch_multiplier")
    app.add_defaults(defaults_for(read(app), app.conf))
    assert app.conf.task_acks_late is False
    assert app.conf.worker_prefetch_multiplier == 1
