"""The management endpoints over Flask and FastAPI: what they show and change, and what they say to bad requests.

Thread rule: one thread.
Refuses to know: who may ask (test_management_access), the webhook and how alerts are judged.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from managing import BEARER, FRAMEWORKS, TOKEN, Ask, client, fastapi_app, flask_app
from stillwarm import Cache, ConfigError, State, _core
from stillwarm.web import _counts
from stillwarm.web import management as management_module
from stillwarm.web.management import Management

XSS = "<script>alert(1)</script>&"


@pytest.fixture
def cache() -> Cache:
    return Cache(ttl=60, namespace="shop")


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ask(framework: str, cache: Cache) -> Ask:
    return signed(client(framework, Management(cache, auth=TOKEN, show_values=True)))


def signed(ask: Ask) -> Ask:
    return lambda method, path, headers=None, body=None, **more: ask(
        method, path, {**BEARER, **(headers or {})}, body, **more
    )


def moved(seconds: int) -> None:
    """From here on time stands still, `seconds` after now."""
    _core.clock_set(_core.clock_now() + seconds * 10**9)


def define(cache: Cache, **options: Any) -> Any:
    cache.define("scoring", ttl=60, **options)

    @cache.cached("scoring", name="score", tags=lambda asin: [f"asin:{asin}"])
    def score(asin: str) -> str:
        return asin * 2

    return score


# -------------------------------------------------------------------------------------------------------------- looking


def test_management_stats_has_the_body_of_the_reference_system(ask: Ask, cache: Cache) -> None:
    score = define(cache)
    for asin in ("a", "a", "b", "a"):
        score(asin)
    got = ask("GET", "/stats")
    stats = got.json["cache_stats"]
    assert got.status == 200
    assert got.json["status"] == "success"
    assert {
        name: stats[name] for name in ("hits", "misses", "errors", "total_requests", "hit_rate", "is_available")
    } == {
        "hits": 2,
        "misses": 2,
        "errors": 0,
        "total_requests": 4,
        "hit_rate": 50.0,
        "is_available": True,
    }
    assert stats["types"]["scoring"]["entries"] == 2
    assert stats["types"]["default"]["total_requests"] == 0
    assert set(stats["types"]["scoring"]) < set(stats)
    assert (stats["namespace"], stats["state"], stats["max_bytes"]) == ("shop", "HEALTHY", 64 * 1024 * 1024)


def test_management_hit_rate_is_a_percentage_with_two_decimals_and_stale_hits_are_hits(ask: Ask, cache: Cache) -> None:
    moved(0)
    calls = iter([1, OSError("down"), OSError("down")])

    @cache.cached(ttl=10, jitter=0, stale_if_error=100, stale_on=OSError)
    def f() -> int:
        value = next(calls)
        if isinstance(value, OSError):
            raise value
        return value

    f()
    f()
    moved(20)
    assert f() == 1
    stats = ask("GET", "/stats").json["cache_stats"]
    assert (stats["hits"], stats["stale_hits"], stats["misses"]) == (2, 1, 1)
    assert stats["total_requests"] == stats["hits"] + stats["misses"] == 3
    assert stats["hit_rate"] == 66.67
    assert stats["errors"] == 1
    assert stats["last_errors"] == [{"type": "default", "error": "OSError: down"}]


def test_management_seconds_saved_is_hits_times_the_mean_load(ask: Ask, cache: Cache) -> None:
    moved(0)

    @cache.cached(ttl=100)
    def slow(n: int) -> int:
        moved(n)
        return n

    slow(1)
    slow(3)
    for _ in range(5):
        slow(1)
    stats = ask("GET", "/stats").json["cache_stats"]
    assert stats["load_seconds"] == 4
    assert stats["seconds_saved"] == 10
    assert stats["types"]["default"]["seconds_saved"] == 10


def test_management_stats_reads_no_key(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("read keys")

    monkeypatch.setattr(_core, "snapshot", forbidden)
    assert ask("GET", "/stats").status == 200
    assert ask("GET", "/hot-keys").status == 500  # the control


def test_management_stats_shows_how_routes_were_answered(
    ask: Ask, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {("hit", ""): 3, ("bypass", "cookie"): 2, ("bypass", "method"): 1}
    monkeypatch.setattr(_counts, "counts", lambda of: answers if of is cache else {})
    http = ask("GET", "/stats").json["cache_stats"]["http"]
    assert http == {"hit": 3, "bypass": 3, "bypass: cookie": 2, "bypass: method": 1}
    monkeypatch.delitem(sys.modules, "stillwarm.web._counts")
    assert ask("GET", "/stats").json["cache_stats"]["http"] is None


def test_management_errors_are_shown_without_passwords_of_urls(ask: Ask, cache: Cache) -> None:
    @cache.cached(ttl=1)
    def f() -> None:
        raise ValueError("no route to postgresql://shop:hunter2secret@db:5432/x")

    with pytest.raises(ValueError, match="hunter2secret"):
        f()
    got = ask("GET", "/stats")
    assert b"hunter2secret" not in got.body
    assert "postgresql://shop:***@db:5432/x" in got.json["cache_stats"]["last_error"]


def test_management_hot_keys_come_the_most_used_first_and_as_many_as_asked_for(ask: Ask, cache: Cache) -> None:
    score = define(cache)
    for asin, times in (("a", 3), ("b", 5), ("c", 1)):
        for _ in range(times):
            score(asin)
    rows = ask("GET", "/hot-keys?n=2").json["hot_keys"]
    assert [(row["key"], row["type"], row["hits"]) for row in rows] == [
        (score.cache_key("b"), "scoring", 4),
        (score.cache_key("a"), "scoring", 2),
    ]
    assert rows[0]["bytes"] > 0
    assert len(ask("GET", "/hot-keys").json["hot_keys"]) == 3


@pytest.mark.parametrize("n", ["0", "-1", "x", "1001", "1e3", "٣", "9" * 400])
def test_management_hot_keys_refuse_a_number_that_is_none(ask: Ask, n: str) -> None:
    got = ask("GET", f"/hot-keys?n={n}")
    assert got.status == 400
    assert (got.json["field"], got.json["accepted"]) == ("n", "1 to 1000")


@pytest.mark.parametrize(("state", "status"), [("HEALTHY", 200), ("WARMING", 200), ("DEGRADED", 200), ("DOWN", 503)])
def test_management_health_tells_the_state_and_only_down_is_an_error(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    monkeypatch.setattr(Cache, "state", State(state))
    got = ask("GET", "/health")
    assert (got.status, got.json["state"]) == (status, state)
    assert [alert["name"] for alert in got.json["alerts"] if alert["active"]] == ["tier_down"] * (state == "DOWN")
    assert ask("GET", "/stats").json["cache_stats"]["is_available"] is (state != "DOWN")


@pytest.mark.parametrize("server", [None, "warm_postgres", "warm_redis"])
def test_management_tells_of_each_tier(framework: str, server: str | None, request: pytest.FixtureRequest) -> None:
    url = None if server is None else request.getfixturevalue(server).new_database()
    with Cache(url, namespace="shop", ttl=60, **({"timeout": "20s", "purge_every": None} if url else {})) as cache:
        ask = signed(client(framework, Management(cache, auth=TOKEN, alerts={"entries": 1})))
        cache.set_many({"a": 1, "b": 2})
        assert cache.get("a") == 1
        assert cache._tier is None or cache._tier.core.drain(20 * 10**9)
        name = {None: None, "warm_postgres": "PostgreSQL", "warm_redis": "Redis"}[server]
        assert ask("GET", "/stats").json["cache_stats"]["tier"] == name
        moved(2)
        got = ask("GET", "/health").json
        assert [alert["name"] for alert in ask("GET", "/alerts").json["alerts"] if alert["active"]] == ["entries"], got
        hot = ask("GET", "/hot-keys").json["hot_keys"]
        assert (hot[0]["key"], hot[0]["hits"]) == ("a", 1)
        assert ask("POST", "/invalidate-key", body={"key": "a"}).status == 200
        assert cache.get("a") is None


def test_management_many_errors_degrade_health(framework: str, cache: Cache) -> None:
    ask = signed(client(framework, Management(cache, auth=TOKEN, alerts={"errors": 1})))

    @cache.cached(ttl=1)
    def f() -> None:
        raise ValueError("x")

    moved(0)
    for expected in ("HEALTHY", "DEGRADED"):
        with pytest.raises(ValueError, match="x"):
            f()
        moved(2)
        got = ask("GET", "/health")
        assert (got.status, got.json["state"]) == (200, expected)


def test_management_alerts_are_listed_with_their_thresholds(ask: Ask) -> None:
    alerts = {alert["name"]: alert for alert in ask("GET", "/alerts").json["alerts"]}
    assert list(alerts) == ["hit_rate", "errors", "tier_down", "entries", "reuse", "expired"]
    assert (alerts["hit_rate"]["threshold"], alerts["hit_rate"]["raised"]) == (0.5, "below")
    assert (alerts["entries"]["threshold"], alerts["entries"]["raised"]) == (10_000, "above")
    assert not any(alert["active"] or alert["crossings"] for alert in alerts.values())


def test_management_metrics_are_those_of_this_cache(ask: Ask, cache: Cache) -> None:
    cache.set("k", 1)
    cache.get("k")
    got = ask("GET", "/metrics")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/plain")
    assert got.headers["cache-control"] == "no-store"
    assert b'stillwarm_hits_total{namespace="shop",type="default"} 1.0' in got.body


def test_management_metrics_without_prometheus_client_say_what_to_install(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name == "stillwarm" and "metrics" in (more[2] or ()):
            raise ModuleNotFoundError("No module named 'prometheus_client'", name="prometheus_client")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    got = ask("GET", "/metrics")
    assert got.status == 501
    assert "pip install 'stillwarm[metrics]'" in got.json["message"]


def test_management_entry_shows_a_value_only_where_that_was_switched_on(framework: str, cache: Cache) -> None:
    cache.set("k:1", {"name": XSS})
    shown = signed(client(framework, Management(cache, auth=TOKEN, show_values=True)))
    hidden = signed(client(framework, Management(cache, auth=TOKEN)))
    got = shown("GET", "/entry?key=k:1")
    entry = got.json["entry"]
    assert entry["value"] == repr({"name": XSS})
    assert (entry["key"], entry["type"], entry["state"], entry["truncated"]) == ("k:1", "default", "fresh", False)
    assert b"<" not in got.body
    assert shown("GET", "/entry?key=k:2").status == 404
    assert shown("GET", "/entry").status == 400
    assert hidden("GET", "/entry?key=k:1").status == 404
    for path in ("/stats", "/hot-keys", "/health"):
        assert b"alert(1)" not in hidden("GET", path).body


def test_management_an_entry_whose_repr_fails_or_is_long_is_shown_all_the_same(ask: Ask, cache: Cache) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    cache.set("broken", Broken())
    cache.set("long", "x" * 20_000)
    assert "its repr raised RuntimeError" in ask("GET", "/entry?key=broken").json["entry"]["value"]
    entry = ask("GET", "/entry?key=long").json["entry"]
    assert (len(entry["value"]), entry["truncated"]) == (10_000, True)


@pytest.mark.parametrize(
    "path", ["/stats", "/health", "/alerts", "/hot-keys", "/nothing", "/invalidate/x", "/", "/x.js"]
)
def test_management_every_answer_is_not_stored_and_not_guessed_at(ask: Ask, path: str) -> None:
    got = ask("GET", path)
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in got.headers["content-security-policy"]


def test_management_the_page_is_served_with_a_policy_that_allows_its_own_files_only(ask: Ask) -> None:
    got = ask("GET", "/")
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"stillwarm" in got.body
    assert got.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def test_management_the_page_consists_of_the_files_of_its_folder_and_nothing_else(
    ask: Ask, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page"
    page.mkdir()
    for name in ("page.js", "page.css", "secret.txt", "page.py"):
        (page / name).write_text(name)
    (tmp_path / "outside.js").write_text("outside")
    monkeypatch.setattr(management_module, "_PAGE", page)
    assert ask("GET", "/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert ask("GET", "/page.css").headers["content-type"] == "text/css; charset=utf-8"
    assert ask("GET", "/page.js").body == b"page.js"
    for path in ("/", "/other.js", "/secret.txt", "/page.py", "/..%2foutside.js", "/%2e%2e/outside.js", "/a/page.js"):
        assert ask("GET", path).status == 404, path


def test_management_head_is_get_without_its_body(ask: Ask) -> None:
    for path in ("/stats", "/alerts", "/page.js", "/"):
        got = ask("HEAD", path)
        assert (got.status, got.body) == (200, b""), path
        assert int(got.headers["content-length"]) > 50


# ------------------------------------------------------------------------------------------------------------- mounting


def test_management_several_caches_have_several_prefixes_and_only_their_own_entries(framework: str) -> None:
    first, second = Cache(ttl=60, namespace="first"), Cache(ttl=60, namespace="second")
    of_first = Management(first, auth=TOKEN)
    of_second = Management(second, auth=TOKEN, prefix="/admin/other-cache")
    app: Any = (flask_app if framework == "flask" else fastapi_app)(of_first, of_second)
    ask = signed(client(framework, app=app))
    for cache in (first, second):
        cache.set("k", 1)
    assert ask("GET", "/stats").json["cache_stats"]["namespace"] == "first"
    assert ask("GET", "/stats", prefix="/admin/other-cache").json["cache_stats"]["namespace"] == "second"
    assert ask("POST", "/clear-all", prefix="/admin/other-cache").status == 200
    assert (first.contains("k"), second.contains("k")) == (True, False)


def test_management_one_blueprint_in_several_apps(cache: Cache) -> None:
    management = Management(cache, auth=TOKEN)
    for _ in range(2):
        ask = signed(client("flask", app=flask_app(management)))
        assert ask("GET", "/stats").status == 200


@pytest.mark.parametrize("prefix", ["", "/", "api", "/api/", "/<x>", "/{x}", "//a", None, "/a b"])
def test_management_a_prefix_that_is_no_path_is_refused(cache: Cache, prefix: Any) -> None:
    with pytest.raises(ConfigError, match="prefix="):
        Management(cache, auth=TOKEN, prefix=prefix)


def test_management_show_values_is_a_bool(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="show_values='no'"):
        Management(cache, auth=TOKEN, show_values="no")  # type: ignore[arg-type]
