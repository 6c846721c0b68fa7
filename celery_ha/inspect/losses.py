"""What a worker's servers would lose, said once, at its start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from redis.exceptions import ResponseError

from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.census import Census
from celery_ha.brokers.redis import RedisBroker
from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.inspect.findings import of_server
from celery_ha.store.base import Store
from celery_ha.store.redis import RedisStore

logger = logging.getLogger(__name__)


def warn_of_losses(broker: NodeBroker, store: Store, *, apart: bool) -> None:
    """Log what Redis does not keep, or may drop: ``ha check`` says the same, to whoever asks.

    Args:
        broker: a client of the worker's broker.
        store: where its leases are.
        apart: the store is another server than the broker.

    **Failure:** a server that does not answer, or does not tell, is left out; nothing depends on what is said here.
    """
    servers: dict[str, Callable[[], Mapping[str, str]]] = {}
    if isinstance(broker, RedisBroker):
        servers["broker"] = Census(broker).facts
    if apart and isinstance(store, RedisStore) and store.survey is not None:
        servers["store"] = store.survey.facts
    for about, facts in servers.items():
        try:
            found = facts()
        except (StoreError, StoreUnavailable, ResponseError) as exc:
            logger.info("The %s does not tell what it keeps: %s", about, exc)
            continue
        for finding in of_server(about, found):
            if finding.level != "ok":
                logger.warning("The %s %s", about, finding.text)
