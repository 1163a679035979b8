"""The doctor on a Redis Cluster: what is wrong with the whole, with each master, and with the namespace on all of them.

Thread rule: one thread, as _doctor_redis.
Refuses to know: what is looked at on one server (_doctor_redis), and terminals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stillwarm import _doctor_redis
from stillwarm._admin_cluster import BUCKETS, bucket_key
from stillwarm._admin_redis import RedisPlace
from stillwarm._ask import ServerError
from stillwarm._ask_cluster import ClusterConversation, Place
from stillwarm._cli_redis import has_bucket, sign_in
from stillwarm._connect import without_passwords
from stillwarm._doctor import Finding, _settings
from stillwarm._doctor_census import Census, census_found
from stillwarm._doctor_redis import Asks
from stillwarm._url import redis_address
from stillwarm.errors import TierUnavailable

_SLOTS: Final = 16384


def examine(place: RedisPlace, url: str, cache: Any = None) -> list[Finding]:
    """Everything that is found; [] is a clean bill of health.

    Args:
        url: how the cluster is reached.
        cache: the app's Cache, for what only it knows: ttl of types, load times.

    Raises:
        TierUnavailable: no node answers.
    """
    found = _doctor_redis.reached(url)
    address = redis_address(url)
    try:
        cluster = ClusterConversation(address.places, lambda talk: sign_in(talk, url), address.tls)
    except ServerError as error:
        text = without_passwords(str(error), url)
        if text.startswith("Redis at "):
            raise TierUnavailable(text) from None
        return [*found, _not_found(text, address.user or "default")]
    with cluster:
        for silent, said in cluster.silent.items():
            what = f"{_shown(silent)} of the URL does not answer: {without_passwords(str(said), url)}"
            found.append(Finding("note", what, "name nodes that are there; the first that answers tells the others"))
        found += _whole(cluster)
        census = Census()
        found += _masters(cluster, place, address.user or "default", census, url)
        try:
            is_there = any(has_bucket(cluster, place.namespace, bucket) for bucket in range(BUCKETS))
        except ServerError:  # what is behind it was found above
            return found
        found += census_found(place, census, is_there)
    if is_there and not any(one.level == "wrong" for one in found):  # the tier would make it
        found += _doctor_redis.contents(place)
    return found + _settings(cache)


def _not_found(text: str, user: str) -> Finding:
    if "cluster support disabled" in text:
        return Finding(
            "wrong", f"the server is no node of a cluster: {text}", "redis://host:port/0 for a server of its own"
        )
    if text.startswith("NOPERM"):
        return Finding("wrong", f"the user may not ask for the slots: {text}", f"ACL SETUSER {user} +cluster|slots")
    return _doctor_redis.refused(text)


# ---------------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True)
class _Node:
    """A line of CLUSTER NODES."""

    id: str
    place: Place
    flags: frozenset[str]
    master: str

    @staticmethod
    def of(line: str) -> _Node:
        words = line.split()
        host, _, port = words[1].partition("@")[0].partition(",")[0].rpartition(":")
        return _Node(words[0], (host, int(port)), frozenset(words[2].split(",")), words[3])

    @property
    def is_gone(self) -> bool:
        return bool(self.flags & {"fail", "noaddr"})


def _whole(cluster: ClusterConversation) -> Iterator[Finding]:
    talk = cluster.to(cluster.first)
    try:
        info = dict(line.split(":", 1) for line in talk("CLUSTER", "INFO").splitlines() if ":" in line)
        nodes = [_Node.of(line) for line in talk("CLUSTER", "NODES").splitlines()]
    except ServerError as error:
        what = f"the user may not ask how the cluster is: {error}"
        yield Finding("note", what, "+cluster|info +cluster|nodes; the rest below does not need it")
        return
    served = sum(last - first + 1 for first, last, _ in cluster.ranges)
    gone = [node for node in nodes if node.is_gone]
    if info.get("cluster_state", "ok") != "ok" or served < _SLOTS:
        state = info.get("cluster_state")
        what = f"the cluster is not whole: cluster_state:{state}, {served} of {_SLOTS} slots are served"
        advice = "start what is gone (CLUSTER NODES), or give its slots to others: redis-cli --cluster fix; "
        yield Finding("wrong", what, advice + "cluster-require-full-coverage no lets the other masters go on")
    for node in gone:
        is_master = "master" in node.flags and _has_slots(cluster, node)
        what = f"{'master' if is_master else 'node'} {_shown(node.place)} is gone ({','.join(sorted(node.flags))})"
        yield Finding("wrong" if is_master else "note", what, "start it, or CLUSTER FORGET it on every node")
    followed = {node.master for node in nodes if not node.is_gone and "slave" in node.flags}
    alone = [node.place for node in nodes if node.id not in followed and _has_slots(cluster, node)]
    if alone:
        what = f"no replica stands by for {', '.join(_shown(place) for place in sorted(alone))}: while such a master is"
        what += " away, what it has is loaded anew at each miss, and invalidations wait for it"
        advice = "a replica for each (CLUSTER REPLICATE); without, cluster-require-full-coverage no, so that the other"
        yield Finding("note", what, advice + " masters go on")


def _has_slots(cluster: ClusterConversation, node: _Node) -> bool:
    return any(place == node.place for _, _, place in cluster.ranges)


# -------------------------------------------------------------------------------------------------------- each master


@dataclass(frozen=True)
class _NodePlace(RedisPlace):
    """What of a namespace one master has, by one of its buckets."""

    bucket: int = 0

    def key(self, name: str) -> str:
        return super().key(name) if name == "c" else bucket_key(self.namespace, self.bucket, name)


class _NodeAsks(Asks):
    commands = (*Asks.commands, "CLUSTER SLOTS", "ASKING")


def _masters(cluster: ClusterConversation, place: RedisPlace, user: str, census: Census, url: str) -> Iterator[Finding]:
    """What is wrong with which masters, told once."""
    told: dict[Finding, list[Place]] = {}
    buckets = {cluster.master_of(bucket_key(place.namespace, b, "m")): b for b in range(BUCKETS)}
    masters = [master for master in cluster.masters if master in buckets]
    for master in masters:
        mine = _NodePlace(place.query, place.namespace, place.types, buckets[master])
        try:
            asks = _NodeAsks(cluster.to(master), mine, user)
            found = [_plain(one) for one in _doctor_redis.looked(asks, _counted(census))]
        except ServerError as error:
            text = without_passwords(str(error), url)
            found = [Finding("wrong", f"a master does not answer: {text}", "CLUSTER NODES; start it, or fail over")]
        for one in found:
            told.setdefault(one, []).append(master)
    for one, places in told.items():
        where = "" if len(places) == len(masters) > 1 else f" (on {', '.join(map(_shown, places))})"
        yield Finding(one.level, one.what + where, one.advice)


def _counted(census: Census) -> Any:
    def keys(asks: Asks) -> list[Finding]:
        census.count(asks)
        return []

    return keys


def _plain(one: Finding) -> Finding:
    """Without the number of a bucket, which differs from one master to the next."""
    return Finding(one.level, re.sub(r"(stillwarm:\{[^}.]*)\.\d+\}", r"\1.*}", one.what), one.advice)


def _shown(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


__all__ = ["examine"]
