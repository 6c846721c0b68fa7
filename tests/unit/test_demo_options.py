"""What the demo refuses before it starts anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from celery_ha.demo.__main__ import main


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--broker", "amqp://localhost//"), "name a --store"),
        (("--broker", "sqs://"), "begins with one of redis://"),
        (("--store", "memcached://h"), "zookeeper://"),
    ],
)
def test_what_cannot_be_played_is_said(options: tuple[str, ...], says: str):
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
