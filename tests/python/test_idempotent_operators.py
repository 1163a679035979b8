"""Idempotency keys whose outcome is unknown, as management shows and releases them, in both frameworks and both stores.

Thread rule: one thread; records are made older by the test.
Refuses to know: the commands (test_cli_idempotency), the page (test_page_unknown), and who may ask.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from chaos import ChaosProxy
from keeping import older, shared
from managing import BEARER, CHANGE, FRAMEWORKS, TOKEN, Ask, client
from stillwarm import Cache
from stillwarm._servers import PostgresServer
from stillwarm.web import _schema
from stillwarm.web.management import Management
from tiers import Ground, with_port
from unknowing import ROUTE, SECRET, broken, record_of
from writing import KEY, Writes, code, replayed

__all__ = ["shared"]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asking(framework: str, cache: Cache) -> Ask:
    plain = client(framework, Management(cache, auth=TOKEN))
    return lambda method, path, body=None: plain(method, path, BEARER, body)


def records(ask: Ask) -> list[str]:
    got = ask("GET", "/idempotency-unknown")
    assert got.status == 200
    return [one["record"] for one in got.json["unknown"]]


def free(ask: Ask, record: str) -> Any:
    return ask("POST", "/idempotency-release", {"record": record})


def test_idempotent_operator_sees_what_is_unknown_and_releases_it(framework: str, shared: Ground) -> None:
    cache = shared.cache()
    writes = broken(shared, cache)
    ask = asking(framework, cache)
    got = ask("GET", "/idempotency-unknown")
    (one,) = got.json["unknown"]
    assert (one["record"], one["route"], one["by_cookies"]) == (record_of(), ROUTE, False)
    assert 31 <= one["age"] < 60
    assert 0 <= one["unknown_for"] <= one["age"]
    assert 86_000 < one["expires_in"] <= 86_400 - 31 + (0 if shared.url else 31)
    assert KEY.encode() not in got.body
    assert code(writes.ask()) == "outcome-unknown", "the control: it stays so until somebody releases it"
    got = free(ask, record_of())
    assert (got.status, got.json) == (
        200,
        {"status": "success", "record": record_of(), "route": ROUTE, "released": True},
    )
    assert records(ask) == []
    assert writes.executed == 1
    assert writes.ask().body == SECRET
    assert writes.executed == 2
    assert replayed(writes.ask())


def test_idempotent_operator_cannot_release_what_is_done_or_runs(framework: str, shared: Ground) -> None:
    cache = shared.cache()
    ask = asking(framework, cache)
    assert records(ask) == []
    seen = []

    def handler(n: int) -> Any:
        seen.append((records(ask), free(ask, record_of()).status))  # while it runs
        return 201, [], SECRET

    writes = Writes("flask", cache, handler, per_user=lambda: "ann")
    assert writes.ask().status == 201
    got = free(ask, record_of())
    assert (seen, records(ask), got.status) == ([([], 404)], [], 404)
    assert "it is running, done, released or expired" in got.json["message"]
    assert SECRET not in ask("GET", "/idempotency-unknown").body
    assert (writes.ask().body, writes.executed) == (SECRET, 1)


def test_idempotent_operator_releases_once_and_nothing_that_expired(framework: str, shared: Ground) -> None:
    cache = shared.cache()
    broken(shared, cache, ttl="1h")
    ask = asking(framework, cache)
    assert [free(ask, record_of()).status for _ in range(2)] == [200, 404]
    broken(shared, cache, ttl="1h")
    older(shared, 3600)
    assert records(ask) == []
    assert free(ask, record_of()).status == 404


def test_idempotent_operator_sees_the_oldest_first_and_as_many_as_asked_for(framework: str, shared: Ground) -> None:
    cache = shared.cache()
    for key in ("first", "second", "third"):
        broken(shared, cache, key)
    ask = asking(framework, cache)
    expected = [record_of(key) for key in ("first", "second", "third")]
    assert records(ask) == expected
    got = ask("GET", "/idempotency-unknown?n=2")
    assert [one["record"] for one in got.json["unknown"]] == expected[:2]
    _schema.UnknownBody.model_validate(got.json, extra="forbid")
    assert ask("GET", "/idempotency-unknown?n=0").json["accepted"] == "1 to 1000"


def test_idempotent_operator_sees_own_namespace_only(framework: str, warm_postgres: PostgresServer) -> None:
    ground = Ground(warm_postgres.new_database())
    other = Ground(ground.url)
    try:
        cache = ground.cache()
        broken(ground, cache)
        ask = asking(framework, other.cache())
        assert records(ask) == []
        assert free(ask, record_of()).status == 404
        assert records(asking(framework, cache)) == [record_of()]
    finally:
        ground.close()
        other.close()


def test_idempotent_operator_tells_clients_that_only_have_cookies(shared: Ground) -> None:
    cache = shared.cache()
    writes = Writes("flask", cache, lambda n: (_ for _ in ()).throw(SystemExit()))
    with pytest.raises(SystemExit):
        writes.ask(headers={"cookie": "session=1"})
    older(shared, 31)
    (one,) = asking("flask", cache)("GET", "/idempotency-unknown").json["unknown"]
    assert (one["by_cookies"], one["record"]) == (True, record_of(user=None))
    assert "session" not in str(one)


def test_idempotent_operator_who_looks_makes_no_table(framework: str, warm_postgres: PostgresServer) -> None:
    ground = Ground(warm_postgres.new_database())
    try:
        assert records(asking(framework, ground.cache())) == []
        assert ground.sql("SELECT to_regclass('stillwarm.idempotency')") == [(None,)]
    finally:
        ground.close()


def test_idempotent_operator_who_looks_is_not_warned_of_memory(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Cache(ttl=60) as cache:
        ask = asking("flask", cache)
        assert records(ask) == []
        assert free(ask, record_of()).status == 404
    assert "idempotent" not in caplog.text


def test_idempotent_operator_is_told_when_the_database_is_away(
    framework: str, warm_postgres: PostgresServer, chaos: Any
) -> None:
    ground = Ground(warm_postgres.new_database())
    proxy: ChaosProxy = chaos(warm_postgres.port)
    assert ground.url is not None
    cache = Cache(with_port(ground.url, proxy.port), namespace=ground.namespace, timeout="1s", purge_every=None)
    try:
        broken(ground, ground.cache())
        ask = asking(framework, cache)
        assert records(ask) == [record_of()]
        proxy.behave(refuse=True)
        proxy.end_all()
        for got in (ask("GET", "/idempotency-unknown"), free(ask, record_of())):
            assert got.status == 503
            assert got.json["status"] == "error"
        assert records(asking(framework, ground.caches[0])) == [record_of()], "nothing was released"
    finally:
        cache.close()
        ground.close()


def test_idempotent_operator_of_a_callable_needs_the_header_of_changes(framework: str, shared: Ground) -> None:
    cache = shared.cache()
    broken(shared, cache)
    ask = client(framework, Management(cache, auth=lambda request: True))
    body = {"record": record_of()}
    assert ask("POST", "/idempotency-release", {}, body).status == 403
    assert ask("POST", "/idempotency-release", {**CHANGE, "Sec-Fetch-Site": "cross-site"}, body).status == 403
    assert ask("GET", "/idempotency-release", CHANGE).status == 405
    assert len(ask("GET", "/idempotency-unknown").json["unknown"]) == 1
    assert ask("POST", "/idempotency-release", CHANGE, body).status == 200
