"""Several servers that speak TLS alone: sentinels with their service, a cluster; and the tools.

Thread rule: one thread.
Refuses to know: what happens when one of them is gone (test_redis_sentinel, test_redis_cluster).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from certificates import Authority, with_tls
from outages import eventually, is_of, patient
from stillwarm import State
from stillwarm._ask_redis import ask_redis
from stillwarm._redis_clusters import RedisCluster, RedisSentinel
from stillwarm._redis_server import RedisServer
from stillwarm._servers import ServerError
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The file of an authority that has issued nothing here."""
    with Authority() as other:
        yield other.file


def believing(url: str, authority: str, in_place_of: Authority) -> str:
    return url.replace(quote(in_place_of.file, safe=""), quote(authority, safe=""))


def speaks_no_plain_text(server: RedisServer) -> bool:
    try:
        ask_redis((server.host, server.port), [("PING",)])
    except ServerError:
        return True
    return False


@with_tls
def test_redis_tls_groups_sentinel_fails_over(authority: Authority, elsewhere: str) -> None:
    with RedisSentinel(tls=authority.issue()) as service:
        assert all(map(speaks_no_plain_text, (*service.servers, *service.sentinels)))
        with patient(believing(service.url, elsewhere, authority)) as careful:
            with pytest.raises(TierError, match=r"no sentinel answers: TLS: the certificate of 127\.0\.0\.1 is not"):
                careful.cache.check()
        with patient(service.url) as one, patient(service.url) as other:
            first = one.get("k")
            one.written()
            assert other.get("k") == first
            before = service.master
            service.sentinels[0].command("SENTINEL", "FAILOVER", service.service)
            service.failed_over(before)
            other.cache.invalidate(key="get:'k'")
            eventually(lambda: one.get("k") != first)
            one.written()
            assert one.cache.confirm()
            assert "stillwarm:" in str(service.master.command("KEYS", "stillwarm:*"))


@with_tls
def test_redis_tls_groups_cluster_moves_a_master(authority: Authority, elsewhere: str) -> None:
    with RedisCluster(tls=authority.issue()) as cluster:
        assert all(map(speaks_no_plain_text, cluster.nodes))
        with patient(believing(cluster.url, elsewhere, authority)) as careful:
            with pytest.raises(TierError, match=r"TLS: the certificate of 127\.0\.0\.1 is not accepted"):
                careful.cache.check()
        with patient(cluster.url) as one, patient(cluster.url) as other:
            values = {key: one.get(key) for key in map(str, range(60))}
            one.written()
            assert {key: other.get(key) for key in values} == values
            assert other.load.calls == []
            assert all(master.command("DBSIZE") > 0 for master in cluster.masters), "on every node"
            cluster.fail_over(cluster.masters[0])
            one.cache.invalidate(pattern="get:*")
            eventually(lambda: all(other.get(key) != values[key] for key in values))
            other.written()
            eventually(lambda: one.cache.confirm() and one.cache.state is not State.DOWN)
            assert all(is_of(one.fresh(key), key) for key in values)


@with_tls
def test_redis_tls_groups_tools_speak_it_too(authority: Authority, elsewhere: str) -> None:
    with RedisServer(settings={"requirepass": "a-secret"}, tls=authority.issue()) as server:
        with patient(server.url, namespace="shop") as one:
            one.get("k")
            one.written()

        def run(*words: str, url: str = server.url) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "stillwarm.cli", *words, "--url", url, "--namespace", "shop"]
            return subprocess.run(command, capture_output=True, text=True, timeout=120)

        told = run("stats", "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)
        found = run("doctor")
        assert "without TLS" not in found.stdout + found.stderr
        assert "Traceback" not in found.stdout + found.stderr
        wrong = run("stats", url=believing(server.url, elsewhere, authority))
        assert wrong.returncode != 0
        assert "certificate" in wrong.stdout + wrong.stderr
        assert "a-secret" not in "".join((told.stdout, found.stdout, found.stderr, wrong.stdout, wrong.stderr))
