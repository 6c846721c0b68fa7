"""A message as it stands in a queue of kombu's Redis transport: the few fields celery_ha reads or changes.

The payload is JSON: ``{"body", "content-encoding", "content-type", "headers", "properties"}``. The
body stays encoded as it is. A payload that is not such JSON belongs to somebody else and passes
through byte for byte.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

#: Header with the number of earlier attempts that had started.
DELIVERIES = "ha_deliveries"
#: Header with the number of deliveries whose worker died before the attempt had started.
UNSTARTED = "ha_unstarted"
#: So many of them make a suspect (rule 15).
SUSPECT_AFTER = 3


def task_id(payload: bytes) -> str | None:
    """The id of the task in a message; None if it is not a task message.

    Protocol 2 has it in the headers; in protocol 1 it is hidden in the body and repeated as the
    correlation id.
    """
    envelope = _parse(payload)
    if envelope is None:
        return None
    found = envelope["headers"].get("id") or envelope["properties"].get("correlation_id")
    return found if isinstance(found, str) else None


def deliveries(payload: bytes) -> int:
    """How many earlier attempts at this message had started; 0 if it does not say."""
    envelope = _parse(payload)
    return 0 if envelope is None else attempts(envelope["headers"])


def unstarted(payload: bytes) -> int:
    """With how many workers it died before an attempt had started."""
    envelope = _parse(payload)
    return 0 if envelope is None else _count(envelope["headers"], UNSTARTED)


def attempts(headers: Mapping[str, Any]) -> int:
    """How many earlier attempts had started, by the headers of a message."""
    return _count(headers, DELIVERIES)


def suspected(headers: Mapping[str, Any]) -> bool:
    """Whether worker after worker died with a message of these headers before it had started."""
    return _count(headers, UNSTARTED) >= SUSPECT_AFTER


def embedded(payload: bytes) -> Mapping[str, Any]:
    """Callbacks, errbacks, chain and chord of a message, if they can be read without unpacking anything else.

    JSON as kombu writes it, not compressed; any other body may kill whoever opens it.
    """
    envelope = _parse(payload)
    if envelope is None or envelope.get("content-type") != "application/json" or envelope["headers"].get("compression"):
        return {}
    try:
        body = envelope["body"]
        text = b64decode(body) if envelope["properties"].get("body_encoding") == "base64" else body
        found = json.loads(text)[2]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def headers(payload: bytes) -> Mapping[str, Any]:
    """The headers of a message; none if they cannot be read."""
    envelope = _parse(payload)
    return {} if envelope is None else envelope["headers"]


def afresh(payload: bytes) -> bytes:
    """The payload to put back for a new beginning: no earlier attempt counts; nothing else changes."""
    envelope = _parse(payload)
    if envelope is None or envelope["headers"].keys().isdisjoint((DELIVERIES, UNSTARTED)):
        return payload
    for name in (DELIVERIES, UNSTARTED):
        envelope["headers"].pop(name, None)
    return json.dumps(envelope).encode()


def rerouted(payload: bytes, exchange: str, routing_key: str) -> bytes:
    """The payload with another way noted that it came: a retry takes it again. Nothing else changes."""
    envelope = _parse(payload)
    info = None if envelope is None else envelope["properties"].get("delivery_info")
    if not isinstance(info, dict):
        return payload
    info.update(exchange=exchange, routing_key=routing_key)
    return json.dumps(envelope).encode()


def redelivered(payload: bytes, *, started: bool) -> bytes:
    """The payload to put back for an attempt that did not end.

    Args:
        payload: the message as it was delivered.
        started: the attempt had started and counts (guarantee G7).

    Returns:
        The payload with the redelivered flags set, in the headers and in the delivery info where
        there is one, and a count raised: of attempts that had started, or of deliveries that had
        not. Nothing else changes. The same arguments always give the same bytes, so two leaders that
        recover the same claim agree.
    """
    envelope = _parse(payload)
    if envelope is None:
        return payload
    headers = envelope["headers"]
    headers["redelivered"] = True
    info = envelope["properties"].get("delivery_info")
    if isinstance(info, dict):
        info["redelivered"] = True
    name = DELIVERIES if started else UNSTARTED
    headers[name] = _count(headers, name) + 1
    return json.dumps(envelope).encode()


def _parse(payload: bytes) -> dict[str, Any] | None:
    try:
        envelope = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(envelope, dict):
        return None
    parts = envelope.get("headers"), envelope.get("properties")
    return envelope if all(isinstance(part, dict) for part in parts) else None


def _count(headers: Mapping[str, Any], name: str) -> int:
    count = headers.get(name)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0
