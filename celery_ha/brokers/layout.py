"""Names of the broker's keys, and how the scripts are told about them."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds a fenced lease is refused for. Lease ids are random, so only a zombie could ask again.
TOMBSTONE = 86_400
#: Seconds a producer's last publish id is remembered (rule 14).
PUBLISH_MEMORY = 600


#: Seconds for which a bell that nobody hears is kept; scripts have it too.
BELL_TTL = 3600


@dataclass(frozen=True)
class Layout:
    """Where everything is, for one broker database."""

    #: kombu's ``global_keyprefix``: before queue keys and ours alike.
    prefix: str = ""
    #: kombu's separator between a queue and a priority.
    sep: str = "\x06\x16"
    #: kombu's priority steps, highest priority first.
    steps: tuple[int, ...] = (0, 3, 6, 9)
    #: Dead letters kept; the oldest go first.
    dead_limit: int = 10_000

    @property
    def names(self) -> str:
        return f"{self.prefix}_ha:"

    @property
    def open(self) -> str:
        return f"{self.names}open"

    @property
    def owners(self) -> str:
        return f"{self.names}owners"

    @property
    def claims(self) -> str:
        return f"{self.names}claims"

    @property
    def dead(self) -> str:
        return f"{self.names}dead"

    @property
    def priorities(self) -> str:
        return " ".join(map(str, self.steps))

    def flight(self, lease: str) -> str:
        return f"{self.names}flight:{lease}"

    def tombstone(self, lease: str) -> str:
        return f"{self.names}tombstone:{lease}"

    def bell(self, queue: str) -> str:
        return f"{self.names}bell:{queue}"

    def producer(self, producer: str, queue: str) -> str:
        """One publish may go to several queues, each of which must get it."""
        return f"{self.names}pub:{producer}:{queue}"

    def source(self, queue: str, priority: int) -> str:
        """The list a message of this priority goes to, without the prefix."""
        step = max((s for s in self.steps if s <= priority), default=self.steps[0])
        return f"{queue}{self.sep}{step}" if step else queue

    def queue(self, source: str) -> str:
        return source.partition(self.sep)[0]
