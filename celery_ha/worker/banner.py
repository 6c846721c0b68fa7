"""Three lines under Celery's own start-up banner."""

from __future__ import annotations

from typing import Any


def banner(ha: Any) -> str:
    """What is on: store and lease, queues and shards, defaults changed."""
    config, node = ha.config, ha.node
    shards = ", ".join(f"{q} x {n}" for q, n in config.queues.items() if q in node.queues) or "none sharded"
    changed = ", ".join(f"{key}={value}" for key, value in ha.changed.items()) or "none"
    return (
        "\n[high availability]\n"
        f" .> store:     {ha.store_url} (lease TTL {config.lease_ttl:g} s)\n"
        f" .> queues:    {', '.join(node.queues)} (shards: {shards})\n"
        f" .> defaults:  {changed}\n"
    )
