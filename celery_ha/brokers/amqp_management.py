"""Closes the connection of a lease through RabbitMQ's management API.

A frozen process keeps its connection, and what RabbitMQ has sent it, until the heartbeats are missed: long,
where ``broker_heartbeat`` is. Who was fenced needs it no more.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from celery_ha.forks import HANDSHAKES

logger = logging.getLogger(__name__)

#: What a connection tells RabbitMQ: under which lease it consumes.
LEASE_PROPERTY = "celery_ha_lease"
#: Seconds for one call.
TIMEOUT = 2.0
#: How often it is looked for a connection, and the seconds between: the API hears of a new one a moment late.
LOOKS, LOOK_EVERY = 5, 1.0

#: Makes a call: method and path; returns the body.
Call = Callable[[str, str], bytes]


class Management:
    """The API of one RabbitMQ cluster.

    Args:
        url: ``http://user:password@host:15672``; a path in front of ``/api`` may follow.
        call: instead of HTTP.
    """

    def __init__(self, url: str, call: Call | None = None) -> None:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        #: Where it is, without the password.
        self.where = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._login = "Basic " + base64.b64encode(login.encode()).decode()
        self._call = call or self._http

    def cut_off(self, lease: str) -> None:
        """Close what a fenced lease consumes by, soon: nobody waits for it.

        **Failure:** without it, the connection ends by its heartbeats, and what it held is delivered again then.
        """
        threading.Thread(target=self._close_all, args=(lease,), name="ha-cut-off", daemon=True).start()

    def close_all(self, lease: str) -> int:
        """Close what a lease consumes by; returns how many connections that were.

        Raises:
            OSError: the API was not reached, or refused.
        """
        names = connections_of(lease, json.loads(self._call("GET", "/api/connections?columns=name,client_properties")))
        for name in names:
            self._call("DELETE", f"/api/connections/{quote(name, safe='')}")
        return len(names)

    def _close_all(self, lease: str) -> None:
        trouble: Exception | None = None
        for _ in range(LOOKS):
            try:
                if self.close_all(lease):
                    logger.warning("Closed the connection to RabbitMQ that lease %s was consuming by", lease)
                    return
                trouble = None  # a process that died has none
            except Exception as exc:  # noqa: BLE001 - a thread of its own must not end in silence
                trouble = exc
            time.sleep(LOOK_EVERY)
        if trouble is not None:
            logger.warning(
                "The connection of fenced lease %s was not closed through %s: %s; RabbitMQ gives it up when its "
                "heartbeats are missed. See ha_rabbitmq_management",
                lease,
                self.where,
                trouble,
            )

    def _http(self, method: str, path: str) -> bytes:
        headers = {"Authorization": self._login, "X-Reason": "celery_ha: the lease was fenced"}
        request = urllib.request.Request(self.where + path, method=method, headers=headers)  # noqa: S310 - http(s), by its setting
        made = HANDSHAKES.making(tls=self.where.startswith("https:"))
        with made, urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body


def connections_of(lease: str, listed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the connections that told this lease, among those the API lists."""
    return [
        str(one["name"])
        for one in listed
        if isinstance(told := one.get("client_properties"), Mapping) and told.get(LEASE_PROPERTY) == lease
    ]
