"""The store in ZooKeeper: one server or an ensemble.

Every write is one transaction that names the versions it was decided by; where one of them has changed,
it is read and decided again. What counts is quorum-durable, so a restart loses nothing. Znodes, under
the root that the URL and ``ha_prefix`` name:

=============================  ===============================================================
``leases/<lease>``             node record with its connections; its version counts the renewals
``conns/<session>``            ephemeral: this session is there
``fenced/<lease>``             record of a fence whose recovery is not finished
``gone/<lease>``               tombstone of a recovered or refused lease
``held/<lease>/<entry>``       a slot that a claim of the lease holds: claim, slot, lock
``leader``                     lease, term, rounds
``rings``                      who owned each shard, as the leader last wrote it down
``epoch``, ``version``         identity of this memory; its version counts changes of membership
``locks/<lock>``               who holds which slot
``locks/<lock>/mark-<x>``      tells this znode of the lock from the next one
``locks/<lock>/line-<x>-<n>``  ephemeral: a caller that waits, first come, first served
``due/<entry>``                a slot that becomes free by itself: task, slot, lock
``ended/<claim>``              the end of this claim was told
``quiet``                      until when no lock is granted
``clock``                      touched to learn the server's time
``history/h-<n>``              finished recoveries
``releases/r-<n>``             locks that people took from their holders, and who
=============================  ===============================================================

ZooKeeper expires nothing that a session does not own: tombstones, ends and history are pruned by age by
those who write them.
"""

from __future__ import annotations

from celery_ha.store.zookeeper.store import ZooKeeperStore

__all__ = ["ZooKeeperStore"]
