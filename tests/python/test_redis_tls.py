"""TLS to Redis: who is believed, who is not, and what a cache does then.

Each certificate that is not accepted has a naive control: a client that verifies nothing accepts it. In a build without
TLS each test says that such a URL is refused.

Thread rule: one thread.
Refuses to know: faults of a connection that stands (test_redis_tls_faults), several servers (test_redis_tls_groups).
"""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import Callable, Iterator

import pytest

from certificates import Authority, with_tls
from outages import eventually, is_of, patient, shared
from stillwarm import Cache, ConfigError, State
from stillwarm._ask_redis import RedisConversation, ask_redis
from stillwarm._redis_server import RedisServer
from stillwarm._redis_tls import RedisTls
from stillwarm._servers import ServerError
from stillwarm.errors import TierError

SECRET = "secretword"


@pytest.fixture(scope="module")
def redis(authority: Authority) -> Iterator[RedisServer]:
    """With a right certificate, and a password."""
    with RedisServer(settings={"requirepass": SECRET}, tls=authority.issue("127.0.0.1", "localhost")) as server:
        yield server


# ------------------------------------------------------------------------------------------------- who is believed


@with_tls
def test_redis_tls_right_certificate_is_believed(redis: RedisServer) -> None:
    with patient(redis.url) as one, patient(redis.url) as other:
        first = one.get("k")
        one.written()
        assert other.get("k") == first
        assert other.load.calls == []
        one.cache.invalidate(key="get:'k'")
        eventually(lambda: other.get("k") != first, what="messages travel too")
        one.cache.check()
        assert one.cache.state is State.HEALTHY
    with pytest.raises(ServerError):  # the control: the same port, in the clear
        ask_redis((redis.host, redis.port), [("PING",)])


@with_tls
@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "REDISS"])
def test_redis_tls_names_its_host_and_its_scheme(redis: RedisServer, scheme: str) -> None:
    url = redis.url.replace("rediss://", f"{scheme}://").replace("127.0.0.1", "localhost")
    with Cache(url, ttl=60, timeout="20s", connect_timeout="20s", purge_every=None) as cache:
        cache.check()


@with_tls
def test_redis_tls_plain_url_to_a_tls_port_and_the_reverse(redis: RedisServer, warm_redis: RedisServer) -> None:
    assert redis.tls is not None
    plain = f"redis://:{SECRET}@127.0.0.1:{redis.port}/0"
    with patient(plain) as one, pytest.raises(TierError):
        one.cache.check()
    reverse = f"rediss://:{SECRET}@127.0.0.1:{warm_redis.port}/0?{redis.tls.text}"
    with patient(reverse) as one, pytest.raises(TierError, match="TLS") as caught:
        one.cache.check()
    assert SECRET not in str(caught.value)


@with_tls
@pytest.mark.parametrize("size", [10, 16_384, 100_000, 3_000_000])
def test_redis_tls_values_of_many_records(redis: RedisServer, size: int) -> None:
    text = "".join(chr(33 + i * i % 90) for i in range(size))
    with patient(redis.url, compress_above=0) as one, patient(redis.url, compress_above=0) as other:
        one.cache.set(f"v{size}", text)
        many = {f"v{size}-{i}": text[i:] for i in range(5)}
        one.cache.set_many(many)
        one.written()
        assert other.cache.get(f"v{size}") == text
        assert other.cache.get_many(many) == many


# --------------------------------------------------------------------------------------------- who is not believed


def wrong_authority(authority: Authority) -> Iterator[RedisTls]:
    with Authority() as other:
        yield other.issue()._replace(authorities=authority.file)


def wrong_host(authority: Authority) -> Iterator[RedisTls]:
    yield authority.issue("another.example.com", "127.0.0.2")


def expired(authority: Authority) -> Iterator[RedisTls]:
    yield authority.issue(until=-datetime.timedelta(hours=1))


def self_signed(authority: Authority) -> Iterator[RedisTls]:
    yield authority.self_signed()


WRONG = {
    wrong_authority: "unable to get local issuer certificate|certificate signature failure",
    wrong_host: "IP address mismatch",
    expired: "certificate has expired",
    self_signed: "self.signed certificate",
}


@with_tls
@pytest.mark.parametrize(("make", "reason"), WRONG.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_redis_tls_wrong_certificate(
    authority: Authority,
    make: Callable[[Authority], Iterator[RedisTls]],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificate = next(maker := make(authority))
    with RedisServer(settings={"requirepass": SECRET}, tls=certificate._replace(verified=False)) as server:
        careful = f"rediss://:{SECRET}@127.0.0.1:{server.port}/0?{certificate.text}"
        with patient(careful) as one:
            assert is_of(one.get("k"), "k")  # calls go on
            with pytest.raises(TierError, match=f"TLS: the certificate of 127.0.0.1 is not accepted: ({reason})"):
                one.cache.check()
            eventually(lambda: one.cache.state is State.DOWN)
            one.cache.set("k2", 1)
        assert "is not accepted" in caplog.text
        assert SECRET not in caplog.text
        # Nobody has signed in but the fixture, which shows the password to a server that it does not verify.
        assert server.command("DBSIZE") == 0
        assert "name=stillwarm" not in server.command("CLIENT", "LIST")
        # The controls: two clients that verify nothing accept it.
        with patient(server.url) as naive:
            assert "ssl_cert_reqs=none" in server.url
            naive.get("k")
            naive.written()
            naive.cache.check()
        assert server.command("DBSIZE") > 0
        with pytest.raises(ServerError):  # and another that does verify finds the same
            RedisConversation("127.0.0.1", server.port, tls=certificate._replace(certificate=""))
    maker.close()


@with_tls
def test_redis_tls_wrong_host_name(authority: Authority) -> None:
    """The same certificate is right for the address, and wrong for the name."""
    with RedisServer(tls=authority.issue("127.0.0.1", "localhost.example.com")) as server:
        with patient(server.url) as one:
            one.cache.check()
        with patient(server.url.replace("127.0.0.1", "localhost")) as one:
            with pytest.raises(TierError, match="certificate of localhost is not accepted: hostname mismatch"):
                one.cache.check()


@with_tls
def test_redis_tls_certificate_that_is_renewed_is_believed(authority: Authority) -> None:
    old, new = authority.issue(until=-datetime.timedelta(hours=1)), authority.issue()
    with RedisServer(tls=old._replace(verified=False)) as server:
        careful = f"rediss://127.0.0.1:{server.port}/0?{old.text}"
        with patient(careful) as one:
            with pytest.raises(TierError, match="expired"):
                one.cache.check()
            server.command("CONFIG", "SET", "tls-cert-file", new.certificate, "tls-key-file", new.certificate)
            eventually(lambda: one.cache.set("k", 1) and one.cache.confirm() and one.health["circuit"] == "closed")
            one.cache.check()


@with_tls
def test_redis_tls_1_1_is_refused(authority: Authority) -> None:
    certificate = authority.issue()
    settings = {"tls-protocols": '"TLSv1.1"', "tls-ciphers": "ALL:@SECLEVEL=0"}
    context = certificate.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1

    class Naive(RedisTls):
        def context(self) -> ssl.SSLContext:
            return context

    with RedisServer(settings=settings, tls=Naive(*certificate)) as server:
        assert server.command("PING") == "PONG"  # the control: a client that takes what is offered
        with patient(server.url) as one, pytest.raises(TierError, match="TLS"):
            one.cache.check()


# ------------------------------------------------------------------------------------------------- certificates of ours


@with_tls
def test_redis_tls_server_that_wants_a_certificate(authority: Authority) -> None:
    mine = authority.issue("a-client")
    with RedisServer(settings={"tls-auth-clients": "yes"}, tls=authority.issue()) as server:
        with patient(server.url) as one:
            with pytest.raises(TierError, match=r"certificate required|reset by peer|was lost"):
                one.cache.check()
            assert is_of(one.get("k"), "k")
        with patient(f"{server.url}&ssl_certfile={mine.certificate}") as one:
            one.cache.check()
        with patient(f"{server.url}&ssl_certfile={mine.certificate}&ssl_keyfile={mine.certificate}") as one:
            one.cache.check()


@with_tls
def test_redis_tls_files_that_are_not_what_they_should_be(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, another = authority.issue("a-client"), authority.issue("a-client")
    nothing = authority.text("nothing", "no certificate")
    with_passphrase = authority.encrypted(mine)
    monkeypatch.setattr("builtins.input", None)
    for parameters, name in (
        ("ssl_ca_certs=/nowhere.pem", "ssl_ca_certs='/nowhere.pem'"),
        (f"ssl_ca_certs={nothing}", "ssl_ca_certs="),
        ("ssl_certfile=/nowhere.pem", "ssl_certfile='/nowhere.pem'"),
        (f"ssl_certfile={mine.certificate}&ssl_keyfile={nothing}", "ssl_keyfile="),
        (f"ssl_certfile={mine.certificate}&ssl_keyfile={another.certificate}", "ssl_keyfile=.*mismatch"),
        (f"ssl_certfile={mine.certificate}&ssl_keyfile={with_passphrase}", "ssl_keyfile="),
    ):
        with pytest.raises(ConfigError, match=name) as caught:
            Cache(f"rediss://:{SECRET}@127.0.0.1/0?{parameters}")
        assert SECRET not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- what is said


@with_tls
@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("rediss://cache.example.com", False),
        ("rediss://10.0.0.1?ssl_cert_reqs=required", False),
        ("rediss+cluster://10.0.0.1,10.0.0.2", False),
        (f"rediss://:{SECRET}@cache.example.com?ssl_cert_reqs=none", True),
        (f"valkeys+sentinel://:{SECRET}@127.0.0.1,10.0.0.1/main?ssl_cert_reqs=none", True),
        ("rediss://127.0.0.1?ssl_cert_reqs=none", False),
    ],
)
def test_redis_tls_without_verification_is_warned_of(url: str, is_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    with Cache(url):
        pass
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == is_open
    if is_open:
        assert "without verified TLS, and so does the password: ssl_cert_reqs=none believes whoever answers" in said[0]
        assert SECRET not in said[0]


@with_tls
def test_redis_tls_password_that_is_wrong(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with shared(redis.url.replace(SECRET, "wrongword"), timeout="20s", connect_timeout="20s") as one:
        with pytest.raises(TierError, match="WRONGPASS"):
            one.cache.check()
        assert "wrongword" not in caplog.text
