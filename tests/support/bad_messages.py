"""Messages that nobody should have published, made from a good one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


def _raw(payload: bytes) -> Callable[[Message], bytes]:
    return lambda good: payload


def _without(part: str) -> Callable[[Message], bytes]:
    return lambda good: dump({key: value for key, value in good.items() if key != part})


def _with(**parts: Any) -> Callable[[Message], bytes]:
    return lambda good: dump({**good, **parts})


def _headers(**changed: Any) -> Callable[[Message], bytes]:
    """Change headers; None takes one away."""

    def make(good: Message) -> bytes:
        headers = {key: value for key, value in {**good["headers"], **changed}.items() if value is not None}
        return dump({**good, "headers": headers})

    return make


def _properties(**changed: Any) -> Callable[[Message], bytes]:
    def make(good: Message) -> bytes:
        properties = {key: value for key, value in {**good["properties"], **changed}.items() if value is not None}
        return dump({**good, "properties": properties})

    return make


def _body(value: Any) -> Callable[[Message], bytes]:
    return lambda good: dump({**good, "body": encoded(json.dumps(value).encode())})


def dump(message: Any) -> bytes:
    return json.dumps(message).encode()


def encoded(body: bytes) -> str:
    return base64.b64encode(body).decode()


#: What is wrong -> how to make it so.
BAD: dict[str, Callable[[Message], bytes]] = {
    "not JSON": _raw(b"{not json"),
    "empty": _raw(b""),
    "not text": _raw(b"\xff\xfe\x00\x80"),
    "JSON, but a list": _raw(b"[1, 2, 3]"),
    "JSON, but a text": _raw(b'"hello"'),
    "nested too deeply": _raw(b"[" * 100_000),
    "no headers": _without("headers"),
    "headers null": _with(headers=None),
    "headers a list": _with(headers=["task"]),
    "no properties": _without("properties"),
    "no body": _without("body"),
    "delivery info a text": _properties(delivery_info="celery"),
    "unknown task": _headers(task="nobody.knows"),
    "no task": _headers(task=None),
    "no task id": _headers(id=None),
    "task a number": _headers(task=7),
    "ETA not a time": _headers(eta="tomorrow, perhaps"),
    "expiry not a time": _headers(expires="never"),
    "unknown compression": _headers(compression="application/x-unknown"),
    "body not compressed": _headers(compression="application/x-gzip"),
    "body not base64": _with(body="%%% not base64 %%%"),
    "body not JSON": lambda good: dump({**good, "body": encoded(b"{not json")}),
    "body a text": _body("hello"),
    "body of two parts": _body([["a"], {}]),
    "arguments not a list": _body([7, {}, {}]),
    "keywords not a mapping": _body([["a"], 7, {}]),
    "embedded not a mapping": _body([["a"], {}, 7]),
    "unknown content type": _with(**{"content-type": "application/x-unknown"}),
    "refused content type": _with(**{"content-type": "application/x-python-serialize"}),
    "unknown encoding of the body": _properties(body_encoding="base65"),
    "wrong arguments": _body([["a", "b", "c", "d", "e"], {}, {}]),
    "arguments missing": _body([[], {}, {}]),
}
