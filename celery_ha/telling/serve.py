"""Serves the metrics of a worker to Prometheus."""

from __future__ import annotations

import logging
import os

from celery_ha.errors import ConfigError

logger = logging.getLogger(__name__)


def serve(where: int | str) -> int | None:
    """Serve the registry of this process, from a thread, for as long as it lives; its children do not keep the port.

    Args:
        where: a port, or an address and a port with a colon between; 0: a free one.

    Returns:
        The port; None: it is taken, which is logged: a worker without metrics is better than none.

    Raises:
        ConfigError: ``prometheus_client`` is not installed.
    """
    try:
        from prometheus_client import start_http_server  # noqa: PLC0415 - optional
    except ImportError as exc:
        raise ConfigError("ha_metrics_port needs prometheus_client: pip install 'celery-ha[metrics]'") from exc
    address, _, port = str(where).rpartition(":")
    try:
        server, _thread = start_http_server(int(port), address.strip("[]") or "0.0.0.0")  # noqa: S104 - as documented
    except OSError as exc:
        logger.error(  # noqa: TRY400 - the cause is in the sentence
            "No metrics are served: ha_metrics_port %s cannot be listened on (%s); every worker of a machine needs a "
            "port of its own",
            where,
            exc,
        )
        return None
    os.register_at_fork(after_in_child=server.socket.close)
    logger.info("Metrics are served on port %d", server.server_port)
    return int(server.server_port)
