from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    name: str
    weight: int = 1
def assign(shards, members):
    ms = sorted(members, key=lambda m: m.name)
    return {s: ms[i % len(ms)].name for i, s in enumerate(shards)} if ms else {}
