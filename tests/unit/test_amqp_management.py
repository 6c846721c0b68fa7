"""Which connections are closed for a lease, and how the management API is asked."""

from __future__ import annotations

import json

import pytest

from celery_ha.brokers import amqp_management
from celery_ha.brokers.amqp_management import LEASE_PROPERTY, Management, connections_of

LISTED = [
    {"name": "127.0.0.1:1 -> 127.0.0.1:5672", "client_properties": {LEASE_PROPERTY: "L"}},
    {"name": "127.0.0.1:2 -> 127.0.0.1:5672", "client_properties": {LEASE_PROPERTY: "other"}},
    {"name": "127.0.0.1:3 -> 127.0.0.1:5672", "client_properties": {"product": "py-amqp"}},
    {"name": "127.0.0.1:4 -> 127.0.0.1:5672", "client_properties": []},
    {"name": "127.0.0.1:5 -> 127.0.0.1:5672"},
]


def test_only_the_connection_that_told_the_lease_is_its():
    assert connections_of("L", LISTED) == ["127.0.0.1:1 -> 127.0.0.1:5672"]


def test_it_is_closed_by_its_name_and_others_are_left_alone():
    calls: list[tuple[str, str]] = []

    def call(method: str, path: str) -> bytes:
        calls.append((method, path))
        return json.dumps(LISTED).encode()

    assert Management("http://u:p@mq:15672", call).close_all("L") == 1
    assert calls[1:] == [("DELETE", "/api/connections/127.0.0.1%3A1%20-%3E%20127.0.0.1%3A5672")]


def test_a_password_is_sent_and_never_shown():
    api = Management("https://us%40r:p%3Aw@mq:15671/behind/a/proxy/")
    assert api.where == "https://mq:15671/behind/a/proxy"
    assert api._login == "Basic dXNAcjpwOnc="


def test_a_connection_that_the_api_hears_of_late_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(amqp_management, "LOOK_EVERY", 0.0)
    answers: list[object] = [OSError("busy"), [], LISTED]
    closed: list[str] = []

    def call(method: str, path: str) -> bytes:
        if method == "DELETE":
            closed.append(path)
            return b""
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return json.dumps(answer).encode()

    Management("http://u:p@mq:15672", call)._close_all("L")

    assert len(closed) == 1
    assert not answers


def test_api_that_does_not_answer_is_told_of_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(amqp_management, "LOOK_EVERY", 0.0)

    def call(method: str, path: str) -> bytes:
        raise OSError("refused")

    Management("http://u:secret@mq:15672", call)._close_all("L")
    assert "was not closed through http://mq:15672: refused" in caplog.text
    assert "secret" not in caplog.text
