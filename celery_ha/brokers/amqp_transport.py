"""kombu's RabbitMQ transport, with channels whose deliveries belong to a lease."""

from __future__ import annotations

from time import monotonic
from typing import Any

from kombu.transport import pyamqp

from celery_ha.brokers.amqp_channel import ClaimingChannel
from celery_ha.brokers.amqp_management import LEASE_PROPERTY
from celery_ha.brokers.amqp_socket import BufferedTransport
from celery_ha.brokers.turns import Turns
from celery_ha.forks import HANDSHAKES


class ClaimingConnection(pyamqp.Connection):
    """A connection of such channels."""

    Channel = ClaimingChannel

    def connect(self, *args: Any, **options: Any) -> Any:
        with HANDSHAKES.making(tls=bool(self.ssl)):
            return super().connect(*args, **options)

    def Transport(self, host: str, connect_timeout: float | None, ssl: Any = False, *args: Any, **options: Any) -> Any:  # noqa: FBT002, N802
        """Py-amqp's, with a buffer, where it is not TLS that has its own."""
        if ssl:
            return super().Transport(host, connect_timeout, ssl, *args, **options)
        return BufferedTransport(host, connect_timeout, *args, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """py-amqp sets the socket's timeout for each frame, and back: not for one that is here already."""
        transport = self._transport
        frame = transport.next_frame() if isinstance(transport, BufferedTransport) else None
        return super().blocking_read(timeout) if frame is None else self.on_inbound_frame(frame)

    def drain_events(self, timeout: float | None = None) -> Any:
        """Wait so long for a message, heartbeats or not: py-amqp begins anew with each.

        Raises:
            TimeoutError: none came.
        """
        if timeout is None:
            return super().drain_events()
        until, left = monotonic() + timeout, timeout
        while not self.blocking_read(left):
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError
        return None

    def take_in(self) -> bool:
        """Handle what was read from the socket already; whether there was anything."""
        transport, found = self._transport, False
        # What is handled may end the connection.
        while isinstance(transport, BufferedTransport) and transport is self._transport:
            frame = transport.next_frame()
            if frame is None:
                break
            found = True
            self.on_inbound_frame(frame)
        return found


class ClaimingTransport(pyamqp.Transport):
    """``amqp://``, ``pyamqp://``."""

    Connection = ClaimingConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Turns()

    def establish_connection(self) -> Any:
        # A publish is accepted when RabbitMQ has said so, not when it was sent.
        options = self.client.transport_options
        options.setdefault("confirm_publish", True)
        if lease := self.client.lease:
            options["client_properties"] = {**options.get("client_properties", {}), LEASE_PROPERTY: lease}
        return super().establish_connection()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        self.cycle.run_on(loop, connection.take_in)

    def on_readable(self, connection: Any, loop: Any) -> None:
        """All that has come, in one turn; kombu takes a turn for each message and one to find that there is none.

        So what came together asks to start together.
        """
        transport = connection.connected and connection.transport
        if not isinstance(transport, BufferedTransport):
            super().on_readable(connection, loop)
            return
        transport.take()
        connection.take_in()

    def drain_events(self, connection: Any, **kwargs: Any) -> Any:
        if not self.cycle.on_loop:
            self.cycle.take()
        return super().drain_events(connection, **kwargs)

    def close_connection(self, connection: Any) -> None:
        self.cycle.close()
        super().close_connection(connection)

    def _collect(self, connection: Any) -> None:
        self.cycle.close()
        super()._collect(connection)


class ClaimingSSLTransport(ClaimingTransport, pyamqp.SSLTransport):
    """``amqps://``."""
