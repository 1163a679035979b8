"""A namespace on a Redis Cluster, as _admin_redis looks at it: hits of all buckets together, keys of all masters.

Thread rule: any thread.
Refuses to know: nodes, and who has which bucket (cpp/core/remote/redis_cluster_survey.cpp asks them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillwarm._admin_redis import RedisPlace, number

BUCKETS = 64  # RedisNames::kBuckets


@dataclass(frozen=True)
class ClusterPlace(RedisPlace):
    """A namespace on a cluster. `query` knows "survey", "hits", "forget hits", "size" and "command" there."""

    def hits(self, start: int = 0, count: int | None = None) -> list[tuple[str, int]]:
        most = 0 if count is None else start + count  # any bucket may have them all
        found = [(str(name), number(hits)) for name, hits in self.query("hits", [str(most)])]
        found.sort(key=lambda one: (-one[1], one[0].encode()))
        return found[start:] if count is None else found[start : start + count]

    def forget(self, names: Sequence[str]) -> None:
        self.query("forget hits", names)

    def size(self) -> int:
        ((keys,),) = self.query("size", [])
        return int(keys or 0)


def bucket_key(namespace: str, bucket: int, name: str) -> str:
    """One of a bucket's own keys."""
    return f"stillwarm:{{{namespace}.{bucket}}}:{name}"


__all__ = ["BUCKETS", "ClusterPlace", "bucket_key"]
