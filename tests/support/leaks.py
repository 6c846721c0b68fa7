"""Every Redis key that is left must have an owner or a TTL, or be one of a few permanent ones."""

from __future__ import annotations

from celery_ha.store.redis import OWNED_BY_A_LEASE, PERMANENT
from celery_ha.store.redis.store import WAITING
from tests.support.scene import Scene

#: What the broker keeps for good, after its prefix: records bounded by the number of leases, queues or dead letters.
BROKER_PERMANENT = ("open", "owners", "claims", "shards", "dead", "dead:why", "dead:index")
#: Beginnings of keys that stand and fall with a lease that is open or waits for recovery.
OWNED = (*OWNED_BY_A_LEASE, "flight:", "wake:")
#: What kombu keeps for good: its routing tables.
KOMBU = "_kombu.binding"


def leaks(scene: Scene) -> list[str]:
    """Keys that nobody answers for.

    Messages that wait in a queue are somebody's work, so queues are no leak.
    """
    owners = {lease.decode() for name in ("leases", "fenced") for lease in scene.hash(name)}
    ours = f"{scene.prefix}_ha:"
    found = []
    for raw in scene.redis.scan_iter("*"):
        key = raw.decode(errors="replace")
        if scene.redis.ttl(raw) != -1 or key.removeprefix(scene.prefix).startswith(KOMBU):
            continue
        if key.startswith(ours):
            if not _accounted_for(scene, raw, key.removeprefix(ours), owners):
                found.append(key)
        elif scene.redis.type(raw) not in (b"list", b"none"):
            found.append(key)
    return sorted(found)


def _accounted_for(scene: Scene, raw: bytes, name: str, owners: set[str]) -> bool:
    if name in (*PERMANENT, *BROKER_PERMANENT) or name.startswith(WAITING):
        return True
    if not name.startswith(OWNED):
        return False
    owner = name.partition(":")[2]
    if name.startswith("lock:"):
        owner = (scene.redis.hget(raw, "lease") or b"").decode()
    elif name.startswith("try:"):
        owner = (scene.redis.get(raw) or b"   ").decode().split(" ")[2]
    return owner in owners or owner.rpartition(".")[0] in owners
