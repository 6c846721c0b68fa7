"""The contracts of a store and of a broker as test suites: whoever writes another adapter runs them unchanged.

In the adapter's own tests, for pytest::

    # conftest.py
    from celery_ha.testing import Backend, member  # the fixture that the suites open nodes with

    @pytest.fixture
    def backend() -> Iterator[Backend]: ...        # a server under test, empty

    # test_contract.py
    from celery_ha.testing.leases import *         # leases, leadership, fencing, recovery
    from celery_ha.testing.locks import *          # locks, tokens, trust
    from celery_ha.testing.lines import *          # waiting in line, limit, max_hold
    from celery_ha.testing.uniques import *        # keys of unique tasks
    from celery_ha.testing.revocations import *    # revoked tasks

A broker gives a fixture ``bench``, a :class:`~celery_ha.testing.hands.Bench`, and runs::

    from celery_ha.testing.brokers import *        # publish, claim, ack, reject, requeue, fence, ETA, ...

celery_ha's own memory, Redis and ZooKeeper stores pass them so, and its memory, Redis and RabbitMQ brokers. Needs
pytest.
"""

from __future__ import annotations

import pytest

for _suite in ("brokers", "leases", "lines", "locks", "revocations", "uniques"):
    pytest.register_assert_rewrite(f"{__name__}.{_suite}")

from celery_ha.testing.hands import Bench, Hands, Held  # noqa: E402
from celery_ha.testing.member import Backend, Member, member  # noqa: E402

__all__ = ["Backend", "Bench", "Hands", "Held", "Member", "member"]
