"""What an observer remembers between two looks, because it seldom changes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from celery_ha.model import Node, Rings
from celery_ha.store.redis.records import lines, with_connections

_CLIENT = re.compile(rb"^id=(\d+) [^\n]*? name=ha:(\S+):[ab] ", re.MULTILINE)


class Sight:
    """The members as of one version of the membership, with the connections they registered last.

    Args:
        seen: ``<epoch>:<version>`` of the records.
        records: node by lease, without connections.
        rings: the last ones, as they were when the records were read.
        session: the connection they were read over.
    """

    def __init__(self, seen: str, records: Mapping[str, Node], rings: Rings, session: str) -> None:
        self.seen = seen
        self.session = session
        self.rings = rings
        self.members: Mapping[str, Node] = records
        #: Leases by id of each registered connection. After a restart of the server an id that one lease has
        #: not replaced yet may be another's new one.
        self.owners: Mapping[bytes, set[bytes]] = {}
        self._records = records
        self._connections = b""

    def with_connections(self, text: bytes) -> Sight:
        """Take the connections as a look found them: lease and ids by turns, one a line."""
        if text != self._connections:
            self._connections = text
            registered = lines(text)
            self.members = {
                lease: with_connections(node, registered.get(lease, "")) for lease, node in self._records.items()
            }
            owners = defaultdict(set)
            for node in self.members.values():
                for id_ in node.connections:
                    owners[id_.encode()].add(node.lease.encode())
            self.owners = dict(owners)
        return self

    def find(self, listed: bytes) -> frozenset[str]:
        """Which registered connections are in an answer of ``CLIENT LIST``.

        The server starts to count anew with every run, so an id may meanwhile be somebody else's: the
        name of the connection must fit too.
        """
        owners = self.owners
        return frozenset(id_.decode() for id_, lease in _CLIENT.findall(listed) if lease in owners.get(id_, ()))
