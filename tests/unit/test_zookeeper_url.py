"""What a zookeeper:// URL says, and what is refused with what to write instead."""

from __future__ import annotations

import pytest

from celery_ha.errors import ConfigError
from celery_ha.store.choose import store_from_url
from celery_ha.store.zookeeper import ZooKeeperStore
from celery_ha.store.zookeeper.url import Address, client_settings, parse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("zookeeper://h1", Address("h1:2181")),
        ("zookeeper://h1/", Address("h1:2181")),
        ("zookeeper://h1,h2:2182, h3/a/b/", Address("h1:2181,h2:2182,h3:2181", "/a/b")),
        ("zookeeper://[::1]:2185,[::2]/x", Address("[::1]:2185,[::2]:2181", "/x")),
        ("zookeeper://ann:s%40c%2F:t@h1/x", Address("h1:2181", "/x", "ann", "s@c/:t")),
        ("zookeeper://ann:pw@h1?sasl=DIGEST-MD5", Address("h1:2181", user="ann", password="pw", sasl="DIGEST-MD5")),
        ("zookeepers://h1", Address("h1:2181", tls=True)),
        (
            "zookeepers://h1?ca=/etc/ca.pem&certfile=/c&verify=false",
            Address("h1:2181", tls=True, verify=False, files=(("certfile", "/c"), ("ca", "/etc/ca.pem"))),
        ),
        ("zookeeper://h1?session_timeout=1.5", Address("h1:2181", session_timeout=1.5)),
    ],
)
def test_url_is_read(url, address):
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://h1", "write one such as zookeeper://"),
        ("zookeeper://", "write one such as zookeeper://"),
        ("zookeeper://h1:port", "write one such as zookeeper://"),
        ("zookeeper://h1,,h2", "write one such as zookeeper://"),
        ("zookeeper://h1/a//b", "write one such as zookeeper://"),
        ("zookeeper://h1/a/../b", "write one such as zookeeper://"),
        ("zookeeper://h1?sasl=DIGEST-MD5", "write user:password@"),
        ("zookeeper://h1?ca=/ca.pem", "write zookeepers://"),
        ("zookeepers://h1?verify=maybe", "write true or false"),
        ("zookeeper://h1?session_timeout=0", "write a number of seconds above 0"),
        ("zookeeper://h1?session_timeout=soon", "write a number of seconds above 0"),
        ("zookeeper://h1?timeout=3", "write one of sasl, session_timeout"),
    ],
)
def test_url_that_cannot_be_used_is_refused_with_what_to_write(url, advice):
    with pytest.raises(ConfigError, match=advice):
        parse(url)


def test_user_logs_in_by_digest_unless_sasl_is_asked_for():
    plain, sasl = parse("zookeeper://ann:pw@h1"), parse("zookeeper://ann:pw@h1?sasl=DIGEST-MD5")

    assert client_settings(plain)["auth_data"] == [("digest", "ann:pw")]
    assert client_settings(sasl)["sasl_options"] == {"mechanism": "DIGEST-MD5", "username": "ann", "password": "pw"}
    assert "auth_data" not in client_settings(sasl)


def test_tls_checks_certificates_unless_told_otherwise():
    assert client_settings(parse("zookeepers://h1"))["verify_certs"] is True
    assert client_settings(parse("zookeepers://h1?verify=no"))["verify_certs"] is False
    assert "use_ssl" not in client_settings(parse("zookeeper://h1"))


def test_url_chooses_its_store_and_nothing_connects():
    store = store_from_url("zookeeper://nowhere.invalid:2181/x", prefix="_ha:", timeout=1.0, ttl=4.0)

    assert isinstance(store, ZooKeeperStore)
    store.close()
