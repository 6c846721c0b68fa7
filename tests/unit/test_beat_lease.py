"""A beat's lease is shorter than a worker's, and its settings still fit together."""

from __future__ import annotations

import pytest

from celery_ha.beat.seat import TTL, shortened
from celery_ha.config import Config


@pytest.mark.parametrize(
    ("settings", "ttl"),
    [
        ({}, TTL),
        ({"ha_lease_ttl": 30.0}, TTL),
        ({"ha_lease_ttl": 2.0}, 2.0),
        ({"ha_look_every": 2.0, "ha_confirm_after": 4.0}, 4.0),
        ({"ha_store_timeout": 0.1}, TTL),
    ],
)
def test_a_beat_s_settings_fit_together(settings, ttl):
    made = shortened(Config.from_conf(settings))  # which refuses contradictions

    assert made.lease_ttl == ttl
    assert made.store_timeout <= Config.from_conf(settings).store_timeout
