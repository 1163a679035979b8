"""Foreign writers on a cluster: what others delete, overwrite or expire on any master is heard of by client tracking.

Thread rule: one thread; tests that hurt the cluster have one of their own.
Refuses to know: this package's own messages (test_tier_invalidation); one server (test_redis_foreign).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chaos import ChaosProxy
from outages import SECRET, Shared, eventually, is_of, patient
from stillwarm._redis_clusters import RedisCluster
from stillwarm._redis_server import RedisServer
from test_redis_cluster import _names
from test_redis_foreign import OTHER_TYPE

pytestmark = pytest.mark.servers
KEYS = [f"k{n}" for n in range(36)]  # on every master


def expire(node: RedisServer, entry: str) -> None:
    """And somebody asks for it, for the server itself looks at few keys a second."""
    node.command("PEXPIRE", entry, 1)
    eventually(lambda: node.command("EXISTS", entry) == 0)


WRITES: dict[str, Callable[[RedisServer, str], object]] = {
    "DEL": lambda node, entry: node.command("DEL", entry),
    "SET": lambda node, entry: node.command("SET", entry, "a value of another program"),
    "APPEND": lambda node, entry: node.command("SETRANGE", entry, 0, "7"),
    "EXPIRE": lambda node, entry: expire(node, entry),
    "another type": lambda node, entry: node.command("EVAL", OTHER_TYPE, 1, entry),
    "FLUSHALL": lambda node, entry: node.command("FLUSHALL"),
}


def entries(cluster: RedisCluster, one: Shared) -> dict[str, tuple[RedisServer, str]]:
    """Of each key: the master that has its entry, and the entry's name."""
    found = {}
    for master in cluster.masters:
        for name in master.command("KEYS", f"stillwarm:{{{one.cache.namespace}.*}}:e:*"):
            found[name.rpartition(":'")[2].rstrip("'")] = (master, name)
    return found


def tracked(cluster: RedisCluster, clients: int = 1) -> bool:
    masters = [node for node in cluster.masters if node.running]
    return all(f"tracking_clients:{clients}" in master.command("INFO", "clients") for master in masters)


def warm(cluster: RedisCluster, one: Shared) -> dict[str, str]:
    """Everything is in memory and in the tier, and one subscription on each master hears."""
    first = {key: one.get(key) for key in KEYS}
    one.written()
    eventually(lambda: tracked(cluster))
    assert {key: one.get(key) for key in KEYS} == first
    return first


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as one:
        yield one


@pytest.fixture
def own() -> Iterator[RedisCluster]:
    """One to be hurt."""
    with RedisCluster() as one:
        yield one


@pytest.mark.parametrize("write", WRITES)
def test_redis_cluster_foreign_writers_are_seen_on_every_master(cluster: RedisCluster, write: str) -> None:
    with patient(cluster.url, namespace=next(_names)) as one:
        warm(cluster, one)
        places = entries(cluster, one)
        assert len({master.port for master, _ in places.values()}) == 3
        for key, (master, entry) in places.items():
            before = one.get(key)
            WRITES[write](master, entry)
            eventually(lambda key=key, before=before: one.get(key) != before, what=f"{write} {key}")  # type: ignore[misc]
            assert is_of(one.get(key), key)
            one.written()


def test_redis_cluster_foreign_writers_are_not_seen_by_polls_alone(cluster: RedisCluster) -> None:
    """The control, and the fallback: without the right to track only what this package does is heard of."""
    for master in cluster.nodes:
        master.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all", "-client|tracking")
    name = next(_names)
    url = cluster.url.replace("redis+cluster://", f"redis+cluster://app:{SECRET}@")
    with patient(url, namespace=name) as one, patient(cluster.url, namespace=name) as other:
        first = {key: one.get(key) for key in KEYS}
        one.written()
        assert {key: other.get(key) for key in KEYS} == first
        eventually(lambda: tracked(cluster))
        for master, entry in entries(cluster, one).values():
            master.command("DEL", entry)
        eventually(lambda: all(other.get(key) != first[key] for key in KEYS))
        polls = one.health["polls"]
        eventually(lambda: one.get("k1") and one.health["polls"] > polls + 2)
        assert {key: one.get(key) for key in KEYS} == first, "nobody told it"
        heard = one.health["heard"]
        other.cache.invalidate(key="get:'k1'")
        eventually(lambda: one.get("k1") != first["k1"])
        eventually(lambda: one.health["heard"] > heard, what="by the channel, on one of the masters")


def test_redis_cluster_foreign_loads_of_others_concern_nobody(cluster: RedisCluster) -> None:
    name = next(_names)
    with patient(cluster.url, namespace=name) as one, patient(cluster.url, namespace=name) as other:
        first = warm_two(cluster, one)
        for n in range(50):
            other.get(f"other{n}")
        other.written()
        assert one.cache.confirm()
        assert {key: one.get(key) for key in KEYS} == first
        assert len(one.load.calls) == len(KEYS)


def warm_two(cluster: RedisCluster, one: Shared) -> dict[str, str]:
    first = {key: one.get(key) for key in KEYS}
    one.written()
    eventually(lambda: one.health["linked"] and one.health["polls"] > 0)
    return first


def test_redis_cluster_foreign_writers_while_a_subscription_is_lost(own: RedisCluster) -> None:
    """What was told while nobody listened is unknown: everything is asked for again."""
    with patient(own.url, namespace="lost", max_lag="500ms") as one:
        for round_, master in enumerate(own.masters):
            first = warm(own, one)
            mine = [(node, entry, key) for key, (node, entry) in entries(own, one).items() if node is master]
            reconnects = one.health["reconnects"]
            clients = [line.split()[0].removeprefix("id=") for line in master.command("CLIENT", "LIST").splitlines()
                       if " flags=" in line and "P" in line.partition(" flags=")[2].split()[0]]  # fmt: skip
            assert len(clients) == 1
            master.command("CLIENT", "KILL", "ID", clients[0])
            for node, entry, _ in mine:
                node.command("DEL", entry)
            eventually(lambda first=first, mine=mine: all(one.get(key) != first[key] for _, _, key in mine))  # type: ignore[misc]
            assert one.health["reconnects"] > reconnects
            eventually(lambda: tracked(own), what=str(round_))


def test_redis_cluster_foreign_writers_while_a_link_is_silent(
    own: RedisCluster, chaos: Callable[..., ChaosProxy]
) -> None:
    """Half open: a master is frozen for a moment, so its subscription gives no sign of life."""
    with patient(own.url, namespace="silent", timeout="1s", max_lag="500ms") as one:
        warm(own, one)
        master = own.masters[0]
        key, entry = next((key, entry) for key, (node, entry) in entries(own, one).items() if node is master)
        before = one.get(key)
        reconnects = one.health["reconnects"]
        master.freeze()
        try:
            eventually(lambda: one.get("k1") and one.health["reconnects"] > reconnects)
        finally:
            master.thaw()
        own.settled()
        own.owner(own.slot_of(entry)).command("DEL", entry)
        eventually(lambda: one.get(key) != before)


@pytest.mark.parametrize("way", ["kill", "ordered"])
def test_redis_cluster_foreign_writers_after_a_failover(own: RedisCluster, way: str) -> None:
    """The replica that took the place of its master is listened to."""
    with patient(own.url, namespace=way, max_lag="500ms") as one:
        warm(own, one)
        old = own.masters[0]
        replica = own.replica_of(old)
        if way == "ordered":
            own.fail_over(old)
        else:
            old.kill()
            own.failed_over(replica)

        def listens() -> bool:
            assert is_of(one.get("k1"), "k1")
            return tracked(own)

        eventually(listens, what="the new master is not listened to")
        warm(own, one)
        places = entries(own, one)
        assert replica.port in {node.port for node, _ in places.values()}
        for key, (node, entry) in places.items():
            before = one.get(key)
            node.command("DEL", entry)
            eventually(lambda key=key, before=before: one.get(key) != before, what=key)  # type: ignore[misc]


def test_redis_cluster_foreign_writers_after_a_slot_has_moved(own: RedisCluster) -> None:
    with patient(own.url, namespace="moved", max_lag="500ms") as one:
        warm(own, one)
        key, (node, entry) = next(iter(entries(own, one).items()))
        slot = own.slot_of(entry)
        target = next(master for master in own.masters if master is not node)
        own.move(slot, target)
        one.fresh(key)
        one.written()
        eventually(lambda: entries(own, one).get(key, (None,))[0] is target)
        eventually(lambda: one.cache.confirm())
        before = one.get(key)
        target.command("DEL", entry)
        eventually(lambda: one.get(key) != before)
