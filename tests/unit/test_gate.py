"""What the main process tells of attempts that may be somebody else's by now (rule 13)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import celery
import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.worker import state
from celery.worker.request import Request

from celery_ha.brokers.ledger import Ledger
from celery_ha.config import Config
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim, Ending
from celery_ha.worker.custody import Custody
from celery_ha.worker.dying import Dying
from celery_ha.worker.gate import Gate, gated
from celery_ha.worker.stock import Stock

LEASE, CLAIM = "L", "L.1"


class Broker:
    """Whether the claim is still in flight; None: it does not answer."""

    def __init__(self) -> None:
        self.there: bool | None = True
        self.asked = 0

    def holds(self, lease: str, claim: str) -> bool:
        self.asked += 1
        if self.there is None:
            raise StoreUnavailable
        return self.there


class Node:
    """As much of a node as the gate needs."""

    def __init__(self) -> None:
        self.config, self.broker = Config(), Broker()
        self.ledger = Ledger(LEASE)
        self.ledger.took([Claim(CLAIM, "q", b"{}", started=True)])
        self.ledger.run(CLAIM)
        self.keeper = SimpleNamespace(trusted=True, lease=LEASE)
        life: Any = SimpleNamespace(keeper=self.keeper, ledger=self.ledger, fenced=False)
        self.claims = Custody(lambda: life, self.broker, Stock(), nullcontext, self.config)  # type: ignore[arg-type]
        self.dying = Dying(lambda _seconds, call: call())
        self.freed: list[tuple[str, ...]] = []
        self.keys: list[str] = []

    def wake(self) -> None:
        pass

    def on_slot_freed(self) -> None:
        pass

    def locks_ended(self, *what: str) -> None:
        self.freed.append(what)

    def free_key(self, key: str, task: str) -> None:
        self.keys.append(key)

    def endings(self) -> list[Ending]:
        return [item.ending for item in self.ledger.owed()]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def request_(node: Node) -> Iterator[Any]:
    """A request with the claim, waiting or running; what is told of its end is in ``told``."""
    app = Celery("gate", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=False)

    @app.task(name="t")
    def task() -> None:
        pass

    made = request_of(app, node)
    state.task_reserved(made)
    yield made
    state.task_ready(made)


def request_of(app: Celery, node: Node, **headers: object) -> Any:
    message = SimpleNamespace(
        headers={"id": uuid4().hex, "task": "t", "ha_unique": "key", **headers},
        properties={"delivery_tag": CLAIM},
        delivery_info={},
        delivery_tag=CLAIM,
        channel=None,
    )
    return gated(Request, Gate(node))(  # type: ignore[arg-type]
        message,
        app=app,
        hostname="w@host",
        body=((), {}, {}),
        decoded=True,
        on_ack=lambda *_: node.ledger.end(CLAIM, Ending.ACK),
        on_reject=lambda _log, _errors, requeue: node.ledger.end(CLAIM, Ending.RELEASE if requeue else Ending.DEAD),
        eventer=None,
        headers=message.headers,
    )


def failure(exc: BaseException) -> ExceptionInfo:
    try:
        raise exc
    except type(exc):
        return ExceptionInfo()


def told(request: Any) -> str:
    return str(request.app.AsyncResult(request.id).state)


TOLD_HERE = [WorkerLostError("gone"), TimeLimitExceeded(1), Reject("told to", requeue=False)]
#: Celery 5.6 tells nobody of a rejection.
TOLD_AS_FAILURE = TOLD_HERE if celery.VERSION[:2] >= (5, 7) else TOLD_HERE[:2]


@pytest.mark.parametrize("exc", TOLD_HERE)
def test_end_of_what_has_moved_on_is_told_to_nobody(node: Node, request_: Any, exc: Exception) -> None:
    node.keeper.trusted, node.broker.there = False, False

    request_.on_failure(failure(exc))

    assert told(request_) == "PENDING"
    assert Ending.ACK not in node.endings()
    assert node.keys == []


@pytest.mark.parametrize("exc", TOLD_AS_FAILURE)
def test_end_in_doubt_is_told_if_the_broker_says_that_it_is_ours(node: Node, request_: Any, exc: Exception) -> None:
    node.keeper.trusted = False

    request_.on_failure(failure(exc))

    assert told(request_) == "FAILURE"


@pytest.mark.parametrize("exc", TOLD_AS_FAILURE)
def test_end_under_a_trusted_lease_costs_no_question(node: Node, request_: Any, exc: Exception) -> None:
    request_.on_failure(failure(exc))

    assert told(request_) == "FAILURE"
    assert node.broker.asked == 0


def test_task_that_wants_to_run_again_is_no_attempt_that_never_ended(node: Node, request_: Any) -> None:
    request_.on_failure(failure(Reject("not yet", requeue=True)), return_ok=True)

    (item,) = node.ledger.owed()
    assert (item.ending, item.payload) == (Ending.RELEASE, None)


def test_end_in_doubt_without_an_answer_is_an_interruption(node: Node, request_: Any) -> None:
    node.keeper.trusted, node.broker.there = False, None

    request_.on_failure(failure(TimeLimitExceeded(1)))
    request_.on_timeout(False, 1)

    assert told(request_) == "PENDING"
    assert node.endings() == [Ending.RELEASE]
    assert (CLAIM,) in node.freed  # its child is killed all the same


def test_time_limit_that_comes_alone_is_told_once_it_is_known_to_be_ours(node: Node, request_: Any) -> None:
    """Green pools come by no ``on_failure``."""
    node.keeper.trusted, node.broker.there = False, False

    request_.on_timeout(False, 1)

    assert told(request_) == "PENDING"


def test_zombie_that_ignores_its_task_leaves_the_key_to_the_one_that_runs(node: Node, request_: Any) -> None:
    node.keeper.trusted, node.broker.there = False, False

    request_.on_failure(failure(Ignore()), return_ok=True)

    assert node.keys == []


def test_task_that_is_ignored_frees_its_key(node: Node, request_: Any) -> None:
    request_.on_failure(failure(Ignore()), return_ok=True)

    assert node.keys == ["key"]


def test_expiry_is_not_told_of_what_may_run_elsewhere(node: Node, request_: Any) -> None:
    # Given a task that waited in its worker, frozen, beyond its expiry
    request = request_of(request_.app, node, expires="2020-01-01T00:00:00+00:00")
    state.task_reserved(request)
    node.keeper.trusted = False
    # When its turn comes before anybody has found out whether the lease was fenced
    assert request.revoked()
    # Then it goes back, if it still can, and nobody is told anything
    assert told(request) == "PENDING"
    assert node.endings() == [Ending.RELEASE]
    state.task_ready(request)
