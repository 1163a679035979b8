"""URLs of Redis with TLS: what they say, and what is refused where the text shows it; with TLS in the build or not.

Thread rule: one thread.
Refuses to know: servers.
"""

from __future__ import annotations

import pytest

from certificates import refuses_tls
from stillwarm import ConfigError, _core
from stillwarm._redis_tls import RedisTls
from stillwarm._url import RedisAddress, is_unprotected, redis_address, scheme_of


def test_redis_tls_urls_say() -> None:
    assert redis_address("rediss://host/3") == RedisAddress("host", 6379, 3, "", "", tls=RedisTls())
    assert redis_address("valkeys://host?db=3&ssl_cert_reqs=none").tls == RedisTls(False)
    assert redis_address("REDISS://host?ssl_cert_reqs=required").tls == RedisTls(True)
    files = "ssl_ca_certs=/a%20b&ssl_certfile=/c&ssl_keyfile=/k"
    assert redis_address(f"rediss://:pw@host?{files}").tls == RedisTls(True, "/a b", "/c", "/k")
    cluster = redis_address(f"rediss+cluster://:pw@one,two?{files}")
    assert cluster.cluster
    assert cluster.tls == RedisTls(True, "/a b", "/c", "/k")
    sentinel = redis_address("valkeys+sentinel://one/main/2?ssl_certfile=/c")
    assert (sentinel.service, sentinel.database, sentinel.tls) == ("main", 2, RedisTls(True, "", "/c"))
    for url in ("redis://host", "unix:///s", "redis+cluster://one", "valkey+sentinel://one/main"):
        assert redis_address(url).tls is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host?ssl_ca_certs=/a", "'ssl_ca_certs' is of TLS, whose scheme is rediss"),
        ("redis+cluster://host?ssl_cert_reqs=none", "'ssl_cert_reqs' is of TLS"),
        ("redis://host?ssl=true", "'ssl' is of TLS"),
        ("unix:///s?ssl_ca_certs=/a", "is of TLS"),
        ("rediss://host?ssl_cert_reqs=optional", "ssl_cert_reqs='optional': accepted: required .the default., or none"),
        ("rediss://host?ssl_cert_reqs=none&ssl_ca_certs=/a", "ssl_ca_certs with ssl_cert_reqs=none"),
        ("rediss://host?ssl_cert_reqs=none&ssl_cert_reqs=required", "given twice"),
        ("rediss://host?ssl_keyfile=/k", "ssl_keyfile without ssl_certfile"),
        ("rediss://host?ssl_ca_certs=", "empty or has a NUL"),
        ("rediss://host?ssl_ca_certs=%00", "empty or has a NUL"),
        ("rediss://host?ssl_check_hostname=false", "'ssl_check_hostname' is not known: they are db, ssl_ca_certs"),
        ("rediss+cluster://host?db=0", "it has no parameters but ssl_ca_certs"),
        ("rediss+sentinel://host/main?ssl_ciphers=x", "it has no parameters but ssl_ca_certs"),
    ],
)
def test_redis_tls_urls_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        redis_address(url.replace("://", "://:hush@"))
    assert "hush" not in str(caught.value)


def test_redis_tls_urls_are_protected_or_not() -> None:
    assert is_unprotected("redis://example.com")
    assert not is_unprotected("rediss://example.com")
    assert is_unprotected("rediss://example.com?ssl_cert_reqs=none")
    assert not is_unprotected("rediss+cluster://127.0.0.1,example.com")
    assert is_unprotected("rediss+cluster://127.0.0.1,example.com?ssl_cert_reqs=none")


@pytest.mark.parametrize("url", ["rediss+unix:///s", "redisss://host", "rediss+other://host", "postgresqls://host"])
def test_redis_tls_urls_of_no_scheme(url: str) -> None:
    with pytest.raises(ConfigError, match="accepted: "):
        scheme_of(url)


def test_redis_tls_urls_of_a_build_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is whether the build has TLS; this one is made to look like one that has not."""
    if _core.REDIS_TLS:
        assert scheme_of("rediss://host") == "redis"
        monkeypatch.setattr(_core, "REDIS_TLS", False)
        with pytest.raises(ConfigError, match=r"no TLS for Redis.*nothing is sent unencrypted"):
            scheme_of("rediss://host")
    else:
        refuses_tls()
