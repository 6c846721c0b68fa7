"""Begins a life: a new lease with its keeper, its observer and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from uuid import uuid4

from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.ledger import Ledger
from celery_ha.config import Config
from celery_ha.detector import Patience
from celery_ha.failover.keeper import Keeper
from celery_ha.failover.observer import Observed, Observer, Pace
from celery_ha.model import Node
from celery_ha.store.base import Store
from celery_ha.telling.teller import Teller
from celery_ha.worker.life import Life
from celery_ha.worker.page import TrustPage


def begin_life(
    name: str,
    weight: int,
    queues: tuple[str, ...],
    shards: Mapping[str, int],
    *,
    config: Config,
    store: Store,
    broker: NodeBroker,
    page: TrustPage,
    on_owed: Callable[[], None],
    suspected: Callable[[], frozenset[str]],
    on_observed: Callable[[Observed], None],
    on_change: Callable[[], None],
    teller: Teller,
    on_told: Callable[[Life], None] = lambda _life: None,
) -> Life:
    """Open a new lease and start to keep it.

    Raises:
        StoreUnavailable: store or broker were not reached; nothing holds anything, try again.

    **Failure:** see :meth:`celery_ha.failover.keeper.Keeper.open`.
    """
    node = Node(uuid4().hex, name, weight, queues, ttl=config.lease_ttl, shards=tuple(sorted(shards.items())))
    keeper = Keeper(
        node,
        store.leases,
        broker,
        clock=monotonic,
        margin=config.trust_margin,
        wedged_after=config.wedged_after,
        renew_every=config.renew_every,
    )
    keeper.open()
    observer = Observer(
        node.lease,
        store.court,
        broker,
        store.locks,
        ttl=config.lease_ttl,
        pace=Pace(config.look_every),
        patience=Patience(confirm_after=config.confirm_after),
    )
    life = Life(
        keeper,
        observer,
        Ledger(node.lease, on_owed),
        page,
        wait=lambda seconds: store.leases.wait(node.lease, seconds),
        suspected=suspected,
        on_observed=on_observed,
        on_change=on_change,
        teller=teller,
        on_told=on_told,
    )
    life.start()
    return life
