"""The store in Redis (or Valkey): one server, or a master that Sentinel watches; no Cluster.

Every write is one Lua script, so it happens wholly or not at all. Keys, after the prefix:

=====================  ===============================================================
``leases``             hash lease -> renewal counter, of the open leases
``nodes``              hash lease -> node record (JSON)
``conns``              hash lease -> ids of its connections
``fenced``             hash lease -> record of a fence whose recovery is not finished
``leader``             hash: lease, term, rounds
``term``, ``token``    the last ones given
``rings``              who owned each shard, as the leader last wrote it down (JSON)
``epoch``, ``version`` identity of this memory; number of membership changes
``run``                hash: server run, when it was first seen, longest TTL
``wake:<lease>``       a node's bell (list, expires)
``gone:<lease>``       tombstone of a recovered or refused lease (expires)
``history``            finished recoveries (list, bounded, expires)
``releases``           locks that people took from their holders (list, bounded, expires)
``lock:<name>``        hash: holder, token; expires while in trust
``held:<claim>``       set of the locks a claim holds
``ended:<claim>``      the end of this claim was told (expires)
``claims:<lease>``     set of the claims of a lease that hold locks
``trust:<task>``       set of the locks in trust for a task (expires)
``unique:<key>``       hash: task, published; whose message is under way under this key (expires)
``beat``               hash entry of a schedule -> its last firing (JSON)
``beat:history``       claimed firings (list, bounded, expires)
=====================  ===============================================================
"""

from __future__ import annotations

from celery_ha.store.redis.store import OWNED_BY_A_LEASE, PERMANENT, RedisStore

__all__ = ["OWNED_BY_A_LEASE", "PERMANENT", "RedisStore"]
