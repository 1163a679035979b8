"""URLs of Redis tiers with several servers: what they say, and what is refused where the text shows it.

Thread rule: one thread.
Refuses to know: servers.
"""

from __future__ import annotations

import pytest

from stillwarm import Cache, ConfigError
from stillwarm._url import RedisAddress, is_unprotected, redis_address, scheme_of


def test_redis_urls_of_sentinels() -> None:
    url = "redis+sentinel://me:se%40cret@one:26379,two,[::1]:7/my%20service/3"
    assert scheme_of(url) == "redis"
    assert redis_address(url) == RedisAddress(
        "one", 26379, 3, "me", "se@cret", (("one", 26379), ("two", 26379), ("::1", 7)), "my service"
    )
    assert redis_address("valkey+sentinel://one/main").database == 0
    assert redis_address("redis+sentinel://:pw@one/main").password == "pw"


def test_redis_urls_of_clusters() -> None:
    url = "redis+cluster://me:pw@one:7000,two/0"
    assert scheme_of(url) == "redis"
    assert redis_address(url) == RedisAddress("one", 7000, 0, "me", "pw", (("one", 7000), ("two", 6379)), cluster=True)
    assert redis_address("valkey+cluster://one").places == (("one", 6379),)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://one:26379", "the name of the service is missing"),
        ("redis+sentinel://one:26379/", "the name of the service is missing"),
        ("redis+sentinel://one:26379//0", "the name of the service is missing"),
        ("redis+sentinel://one:26379/main/x", "'x' is no number"),
        ("redis+sentinel://one:26379/main/0/1", "'0/1' is no number"),
        ("redis+sentinel://one:99999/main", "'one:99999' is no host with a port"),
        ("redis+sentinel://one:0/main", "'one:0' is no host with a port"),
        ("redis+sentinel://one,,two/main", "'' is no host with a port"),
        ("redis+sentinel:///main", "'' is no host with a port"),
        ("redis+sentinel://one/main?db=1", "it has no parameters"),
        ("redis+cluster://one:7000,two:7001/1", "a cluster has the database 0 alone, not '1'"),
        ("redis+cluster://one:7000/0/1", "a cluster has the database 0 alone, not '0/1'"),
        ("redis+cluster://one?db=0", "it has no parameters"),
        ("redis+cluster://", "'' is no host with a port"),
        ("redis+cluster://one:x", "'one:x' is no host with a port"),
    ],
)
def test_redis_urls_that_are_refused_at_construction(url: str, problem: str) -> None:
    secret = url.replace("://", "://me:hush@")
    for text in (url, secret):
        with pytest.raises(ConfigError) as raised:
            Cache(text)
        assert problem in str(raised.value)
        assert "accepted: redis+" in str(raised.value)
        assert "hush" not in str(raised.value)


def test_redis_urls_of_hosts_that_others_may_listen_to() -> None:
    assert not is_unprotected("redis+sentinel://127.0.0.1:1,localhost,[::1]:3/main")
    assert is_unprotected("redis+sentinel://127.0.0.1:1,example.com/main")
