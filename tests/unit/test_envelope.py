from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_ha.envelope import afresh, deliveries, embedded, headers, redelivered, rerouted, suspected, task_id

MESSAGE: dict[str, Any] = {
    "body": "W1tdLCB7fSwge31d",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"lang": "py", "task": "shop.charge", "id": "t-1", "eta": None, "group": None, "stamps": {}, "args": []},
    "properties": {
        "correlation_id": "t-1",
        "reply_to": "r-1",
        "delivery_info": {"exchange": "", "routing_key": "orders.3"},
        "priority": 3,
        "delivery_tag": "tag",
    },
}
PAYLOAD = json.dumps(MESSAGE).encode()
FOREIGN = [b"", b"\xff\xfe", b"not json", b"[]", b"3", b"{}", b'{"headers": {}}', b'{"headers": [], "properties": {}}',
           b"[" * 100_000]  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_redelivery_changes_the_flags_and_the_count_and_nothing_else() -> None:
    expected = json.loads(PAYLOAD)
    expected["headers"] |= {"redelivered": True, "ha_deliveries": 1}
    expected["properties"]["delivery_info"]["redelivered"] = True
    assert json.loads(redelivered(PAYLOAD, started=True)) == expected


def test_attempt_that_never_started_does_not_count() -> None:
    again = redelivered(PAYLOAD, started=False)
    assert deliveries(again) == 0
    assert json.loads(again)["headers"]["redelivered"] is True


def test_every_started_attempt_counts() -> None:
    payload = PAYLOAD
    for _ in range(3):
        payload = redelivered(payload, started=True)
    assert deliveries(payload) == 3


def test_message_with_which_three_workers_died_before_it_had_started_is_a_suspect() -> None:
    payload = redelivered(PAYLOAD, started=True)
    verdicts = []
    for _ in range(4):
        payload = redelivered(payload, started=False)
        verdicts.append(suspected(headers(payload)))
    assert verdicts == [False, False, True, True]
    assert deliveries(payload) == 1
    assert not suspected(headers(afresh(payload)))


def test_rerouted_message_forgets_its_shard_and_nothing_else() -> None:
    expected = json.loads(PAYLOAD)
    expected["properties"]["delivery_info"] = {"exchange": "orders", "routing_key": "orders"}
    assert json.loads(rerouted(PAYLOAD, "orders", "orders")) == expected
    assert all(rerouted(payload, "", "orders") is payload for payload in FOREIGN)


def test_what_is_embedded_is_read_from_plain_json_only() -> None:
    def with_body(body: bytes, **changed: Any) -> bytes:
        properties = {**MESSAGE["properties"], "body_encoding": "base64"}
        return json.dumps({**MESSAGE, "properties": properties, "body": b64encode(body).decode(), **changed}).encode()

    body = json.dumps([[], {}, {"chord": {"task": "body"}}]).encode()
    assert embedded(with_body(body)) == {"chord": {"task": "body"}}
    assert embedded(with_body(body, **{"content-type": "application/x-python-serialize"})) == {}
    assert embedded(with_body(body, headers={"compression": "application/x-gzip"})) == {}
    assert embedded(with_body(b"[1]")) == embedded(with_body(b"{")) == embedded(b"[") == {}


@pytest.mark.parametrize("payload", FOREIGN)
def test_payload_that_is_no_message_comes_back_unchanged(payload: bytes) -> None:
    assert redelivered(payload, started=True) is payload
    assert task_id(payload) is None
    assert deliveries(payload) == 0


def test_message_without_delivery_info_is_still_counted() -> None:
    assert deliveries(redelivered(b'{"headers": {}, "properties": {}}', started=True)) == 1


@pytest.mark.parametrize("count", [None, "3", True, -1, 1.5])
def test_count_that_is_no_count_is_none(count: object) -> None:
    payload = json.dumps({"headers": {"ha_deliveries": count}, "properties": {}}).encode()
    assert deliveries(payload) == 0


def test_task_id_of_protocol_1_is_the_correlation_id() -> None:
    assert task_id(b'{"headers": {}, "properties": {"correlation_id": "t-9"}}') == "t-9"
    assert task_id(PAYLOAD) == "t-1"


@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), json_values), st.text(), st.booleans())
def test_message_survives_whole(headers: dict[str, Any], properties: dict[str, Any], body: str, started: bool) -> None:
    payload = json.dumps({"body": body, "headers": headers, "properties": properties}).encode()
    again = json.loads(redelivered(payload, started=started))
    for name in ("redelivered", "ha_deliveries", "ha_unstarted"):
        again["headers"].pop(name, None)
        headers.pop(name, None)
    for info in (again["properties"].get("delivery_info"), properties.get("delivery_info")):
        if isinstance(info, dict):
            info.pop("redelivered", None)
    assert again == {"body": body, "headers": headers, "properties": properties}
