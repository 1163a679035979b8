"""URLs of Redis: what they say, what is refused at construction, what only the server knows, and no password anywhere.

Thread rule: one thread.
Refuses to know: how the tier talks to its server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from stillwarm import Cache, ConfigError, State, _url
from stillwarm._redis_server import RedisServer
from stillwarm._url import RedisAddress, redis_address
from stillwarm.errors import TierError
from tiers import eventually

SECRET = "secretword"


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    """A server with a password and four databases."""
    with RedisServer(settings={"requirepass": SECRET, "databases": "4"}) as server:
        yield server


# ------------------------------------------------------------------------------------------------------ what they say


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", ("host", 6379, 0, "", "")),
        ("redis://", ("localhost", 6379, 0, "", "")),
        ("REDIS://host:7/", ("host", 7, 0, "", "")),
        ("valkey://host:7/3", ("host", 7, 3, "", "")),
        ("redis://host?db=3", ("host", 6379, 3, "", "")),
        ("redis://:pw@host", ("host", 6379, 0, "", "pw")),
        ("redis://me:pw@host:7/15", ("host", 7, 15, "me", "pw")),
        ("redis://m%65:p%40%2F%3A%25%20w@host", ("host", 6379, 0, "me", "p@/:% w")),
        ("redis://:gr%C3%BC%C3%9F@host", ("host", 6379, 0, "", "grüß")),
        ("redis://[::1]:7/4", ("::1", 7, 4, "", "")),
        ("redis://:pw@[fe80::1%25eth0]/1", ("fe80::1%25eth0", 6379, 1, "", "pw")),
        ("unix:///run/redis/socket", ("/run/redis/socket", 6379, 0, "", "")),
        ("redis+unix:///a%20b?db=2", ("/a b", 6379, 2, "", "")),
        ("unix://me:p%40w@/s", ("/s", 6379, 0, "me", "p@w")),
    ],
)
def test_redis_url_says(url: str, address: tuple[str, int, int, str, str]) -> None:
    assert _url.scheme_of(url) == "redis"
    assert redis_address(url) == RedisAddress(*address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host:port", "the port is no number"),
        ("redis://host:0", "the port is no number"),
        ("redis://host:65536", "the port is no number"),
        ("redis://host/one", "the database 'one' is no number"),
        ("redis://host/-1", "the database '-1' is no number"),
        ("redis://host/1/2", "the database '1/2' is no number"),
        ("redis://host/1234567", "is no number from 0 to 999999"),
        ("redis://host?db=", "the database '' is no number"),
        ("redis://host?db", "has no value"),
        ("redis://host/1?db=2", "the database is given twice"),
        ("redis://host/1?db=1", "the database is given twice"),
        ("redis://host?db=1&db=2", "the database is given twice"),
        ("redis://host?timeout=3", "the parameter 'timeout' is not known"),
        ("redis://host?password=secretword", "the parameter 'password' is not known"),
        ("redis://secretword@host", "a user without a password"),
        ("redis://:secretword%zz@host", "no character of UTF-8"),
        ("redis://:secretword%ff@host", "no character of UTF-8"),
        ("redis://:pa/secretword@host:1/0", "%2F"),
        ("redis://:12/secretword@host:1/0", "%2F"),
        ("redis://:pa?secretword@host:1/0", "%3F"),
        ("redis://:pa#secretword@host", "%23"),
        ("redis://me:12#secretword@host", "%23"),
        ("redis://[::1", "the port is no number|cannot be read"),
        ("unix://host/path", "an absolute path"),
        ("unix:///", "an absolute path"),
        ("unix://:secretword@", "an absolute path"),
        ("memcached://:secretword@host", "accepted: postgresql://.* or redis://"),
    ],
)
def test_redis_url_is_refused_at_construction(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        Cache(url)
    assert str(caught.value).startswith("url")
    assert "ccepted: " in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secretword@host/1", "redis://me:***@host/1"),
        ("redis://secretword@host/1", "redis://***@host/1"),
        ("redis://:a@secretword@host", "redis://:***@host"),
        ("redis://:a/secretword@host", "redis://:***@host"),
        ("redis://host?password=secretword&db=1", "redis://host?password=***&db=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:secret/word@host/db?sslpassword=secretword", "postgresql://me:***@host/db?sslpassword=***"),
    ],
)
def test_redis_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert _url.without_password(url) == repr(shown)


def test_redis_url_of_the_environment_is_named_in_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STILLWARM_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@host:port")
    with pytest.raises(ConfigError, match=r"^REDIS_URL: url='redis://:\*\*\*@host:port': the port") as caught:
        Cache.from_env()
    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- an open way


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("redis://localhost", False),
        ("redis://127.0.0.2:7", False),
        ("redis://[::1]", False),
        ("unix:///run/socket", False),
        (f"redis://:{SECRET}@cache.example.com", True),
        ("redis://10.0.0.1", True),
        ("valkey://[2001:db8::1]", True),
    ],
)
def test_redis_url_of_another_host_is_warned_of(url: str, is_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    with Cache(url):
        pass
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == is_open
    if is_open:
        assert "without verified TLS, and so does the password" in said[0]
        assert "tunnel" in said[0]
        assert SECRET not in said[0]
        assert "sslmode" not in said[0]  # which PostgreSQL has


# --------------------------------------------------------------------------------------- what only the server knows


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("redis://:wrong@127.0.0.1:{port}/0", "WRONGPASS"),
        ("redis://nobody:wrong@127.0.0.1:{port}/0", "WRONGPASS"),
        ("redis://127.0.0.1:{port}/0", "NOAUTH"),
        (f"redis://:{SECRET}@127.0.0.1:{{port}}/4", "DB index is out of range"),
        (f"unix://:{SECRET}@{{socket}}?db=9", "DB index is out of range"),
    ],
)
def test_redis_url_that_the_server_refuses_is_logged_once_and_raised_by_check(
    locked: RedisServer, wrong: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = wrong.format(port=locked.port, socket=locked.socket)
    with Cache(
        url, ttl=60, timeout="20s", connect_timeout="20s", purge_every=None
    ) as cache:  # the constructor asks nobody
        assert cache.state is State.HEALTHY
        assert [cache.get_or_set(f"k{i}", lambda: 5) for i in range(4)] == [5] * 4  # and calls go on without it
        eventually(lambda: cache.state is State.DOWN)
        for _ in range(2):  # with an open circuit, too
            with pytest.raises(TierError, match=said) as caught:
                cache.check()
            assert SECRET not in str(caught.value)
        told = [one.getMessage() for one in caplog.records if said in one.getMessage()]
        assert len(told) == 1
        assert told[0].startswith("the Redis tier failed: ")
        assert SECRET not in caplog.text


def test_redis_url_that_is_right_finds_its_database(locked: RedisServer) -> None:
    for url in (
        locked.url_of(3),
        f"unix://:{SECRET}@{locked.socket}?db=3",
        f"valkey://default:{SECRET}@127.0.0.1:{locked.port}/3",
    ):
        with Cache(url, namespace="right", timeout="20s", purge_every=None) as cache:
            cache.check()
            cache.set("k", 1, ttl=60)
            assert cache.state is State.HEALTHY
    assert locked.command("EXISTS", "stillwarm:{right}:m", database=3) == 1
    assert locked.command("EXISTS", "stillwarm:{right}:m", database=0) == 0


def test_redis_url_of_a_cluster_s_node_that_serves_nothing_is_down() -> None:
    with RedisServer(settings={"cluster-enabled": "yes"}) as node:
        for url, said in ((node.url, r"accepted: redis\+cluster://"), (node.url_of(3), "cluster")):
            with Cache(url, ttl=60, timeout="20s", purge_every=None) as cache:
                assert cache.get_or_set("k", lambda: 5) == 5
                with pytest.raises(TierError, match=said):
                    cache.check()
                assert cache.state is State.DOWN


async def test_redis_url_is_checked_by_coroutines(locked: RedisServer) -> None:
    async with Cache(f"redis://:wrong@127.0.0.1:{locked.port}", timeout="20s", purge_every=None) as cache:
        with pytest.raises(TierError, match="WRONGPASS"):
            await cache.acheck()
    async with Cache(locked.url, timeout="20s", purge_every=None) as cache:
        await cache.acheck()
