"""Where an app's fleet is looked at from outside: it takes no part, opens no lease and judges nobody."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_ha.brokers.connect import RedisAccess, access_to
from celery_ha.config import Config
from celery_ha.errors import ConfigError, HAError, StoreError
from celery_ha.inspect.fleet import Backlog, Standing, backlogs, rings, standings, workers
from celery_ha.inspect.sides import RabbitSide, RedisSide, Side
from celery_ha.keys import shard_names
from celery_ha.model import Look
from celery_ha.ring import Ring
from celery_ha.store.base import Store
from celery_ha.store.survey import Survey

#: What asking may raise: nobody answered, or the answer or a setting cannot be used.
UNANSWERED = (HAError, OperationalError, RedisError, OSError)


class Desk:
    """Reads an app's broker and store.

    Args:
        app: a Celery app with ``HA(app)``.

    Raises:
        ConfigError: the app has no HA, or a setting that cannot be used.
        StoreUnavailable: the broker does not answer.
    """

    def __init__(self, app: Any) -> None:
        if getattr(app, "ha", None) is None:
            raise ConfigError(
                f"the app {app.main or '(none given)'} has no HA: write HA(app), and name the app with -A"
            )
        self.app = app
        self.config: Config = app.ha.config
        access, timeout = access_to(app), self.config.store_timeout
        access.once(timeout)
        self._access = access
        # Of its own: that of this process may be in use, and is not ours to close.
        self.store: Store = app.ha.make_store(access=access)
        #: What is asked of the broker.
        self.side: Side = (
            RedisSide(access, self.store, timeout, self.config.dead_letters_max)
            if isinstance(access, RedisAccess)
            else RabbitSide(access, self.store, app)
        )
        self.census, self.dead = self.side.census, self.side.dead

    @cached_property
    def shards(self) -> dict[str, int]:
        """Shards by sharded queue, as workers consume them: never fewer than there ever were (rule 16)."""
        ever = self.census.widest()
        return {queue: max(count, ever.get(queue, 0)) for queue, count in self.config.queues.items()}

    @cached_property
    def look(self) -> Look:
        """The store, as it was at the first question."""
        return self.store.court.look()

    @property
    def survey(self) -> Survey:
        """What the store can tell.

        Raises:
            StoreError: it cannot.
        """
        if self.store.survey is None:
            raise StoreError(f"the store ({self.app.ha.store_url}) cannot tell that; Redis and ZooKeeper can")
        return self.store.survey

    @property
    def tells(self) -> bool:
        """Whether there is a :attr:`survey`."""
        return self.store.survey is not None

    @cached_property
    def rings(self) -> dict[str, Ring]:
        """Who owns which shard, by sharded queue."""
        return dict(rings(self.look, self.shards))

    def standings(self) -> tuple[Standing, ...]:
        """How each node stands."""
        leases = [*self.look.nodes, *(fenced.node.lease for fenced in self.look.fenced)]
        now = self.survey.now() if self.tells else None
        return standings(self.look, self.rings, self.census.in_flight(leases), now)

    @cached_property
    def queues(self) -> tuple[str, ...]:
        """The queues that the app or a worker knows."""
        # A beat names a queue that is none, to be a node.
        consumed = {queue for node in workers(self.look) for queue in node.queues if not queue.startswith("@")}
        return tuple(sorted({self.app.conf.task_default_queue, *self.shards, *consumed}))

    @cached_property
    def waiting(self) -> Mapping[str, int]:
        """Messages that nobody has taken, by queue and by shard."""
        return self.census.waiting(
            [name for queue in self.queues for name in (queue, *shard_names(queue, self.shards.get(queue, 0)))]
        )

    @cached_property
    def lines(self) -> Mapping[str, int]:
        """How many stand in line, by lock; raises as :attr:`survey` does."""
        return self.survey.lines()

    def backlogs(self) -> tuple[Backlog, ...]:
        """What waits in each queue that the app or a worker knows."""
        return backlogs(self.waiting, self.queues, self.shards)

    def close(self) -> None:
        """Drop the connections."""
        self.store.close()
        self.side.close()
        self._access.close()
