"""Consumers whose credit is not used up by messages that wait.

RabbitMQ sends each consumer so many messages ahead, a number fixed when it subscribes. One that waits
here for the end of another attempt, an hour perhaps, would keep others from coming. A consumer whose
credit is all with such messages subscribes anew: what it held stays unacked and is no longer counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Consumer:
    #: What RabbitMQ knows it by now.
    tag: str
    #: Subscribes it under a tag.
    subscribe: Callable[[str], Any]
    renewals: int = 0
    #: How much of its credit waits here.
    stuck: int = 0


class Consumers:
    """The consumers of one channel, each by the tag its owner gave it.

    Args:
        cancel: ends the subscription of a tag.
    """

    def __init__(self, cancel: Callable[[str], Any]) -> None:
        self._cancel = cancel
        self._consumers: dict[str, _Consumer] = {}
        #: Messages that each may hold; 0: any number.
        self.credit = 0

    def add(self, tag: str, subscribe: Callable[[str], Any]) -> Any:
        """Subscribe a consumer."""
        self._consumers[tag] = _Consumer(tag, subscribe)
        return subscribe(tag)

    def remove(self, tag: str) -> str:
        """Forget a consumer; returns the tag that RabbitMQ knows it by."""
        found = self._consumers.pop(tag, None)
        return tag if found is None else found.tag

    def wait(self, tag: str) -> None:
        """A message that came under this tag waits here."""
        for consumer in self._consumers.values():
            if consumer.tag == tag:
                consumer.stuck += 1

    def renew(self) -> None:
        """Subscribe those anew whose whole credit waits."""
        for tag, consumer in self._consumers.items():
            if self.credit and consumer.stuck >= self.credit:
                self._cancel(consumer.tag)
                consumer.renewals += 1
                consumer.stuck, consumer.tag = 0, f"{tag}+{consumer.renewals}"
                consumer.subscribe(consumer.tag)
