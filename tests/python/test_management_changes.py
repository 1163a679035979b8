"""What the management endpoints change, over Flask and FastAPI, what they say to bad bodies, and their OpenAPI schema.

Thread rule: one thread.
Refuses to know: who may ask, and the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from managing import BEARER, CHANGE, FRAMEWORKS, SECRET, TOKEN, Ask, client, fastapi_app
from stillwarm import Cache, _core, hooks
from stillwarm.web import _schema
from stillwarm.web._router import router
from stillwarm.web.management import Management

XSS = "<script>alert(1)</script>&\"'"
SQL = "'; DROP TABLE entries; -- 100%_[a]*?"


@pytest.fixture
def cache() -> Cache:
    return Cache(ttl=60)


@pytest.fixture(params=FRAMEWORKS)
def ask(request: pytest.FixtureRequest, cache: Cache) -> Ask:
    plain = client(request.param, Management(cache, auth=TOKEN))

    def signed(method: str, path: str, body: Any = None, **more: Any) -> Any:
        return plain(method, path, {**BEARER, **more.pop("headers", {})}, body, **more)

    return signed


@pytest.fixture
def functions(cache: Cache) -> Any:
    cache.define("scoring", ttl=60)
    cache.define("dash/board & <b>", ttl=60)

    @cache.cached(
        "scoring", name="score", tags=lambda asin: [f"asin:{asin}"], stale_if_error=60, stale_while_revalidate=60
    )
    def score(asin: str) -> str:
        return asin

    @cache.cached("dash/board & <b>", name="board")
    def board(asin: str) -> str:
        return asin

    for function in (score, board):
        for asin in ("a", "b", XSS, SQL):
            function(asin)
    return score, board


def held(function: Any) -> set[str]:
    return {asin for asin in ("a", "b", XSS, SQL) if function.cache_contains(asin)}


ALL = {"a", "b", XSS, SQL}


def done(intent: str, target: str | None, count: int | None, stale: bool = False) -> dict[str, Any]:
    return {"status": "success", "intent": intent, "target": target, "stale": stale, "count": count}


# ------------------------------------------------------------------------------------------------------------- changing


def test_management_invalidates_a_type_and_no_other(ask: Ask, functions: Any) -> None:
    score, board = functions
    assert ask("POST", "/invalidate/scoring").json == done("type", "scoring", None)
    assert (held(score), held(board)) == (set(), ALL)


def test_management_a_type_may_have_any_name(ask: Ask, functions: Any) -> None:
    score, board = functions
    got = ask("POST", "/invalidate/dash%2Fboard%20%26%20%3Cb%3E")
    assert got.json == done("type", "dash/board & <b>", None)
    assert (held(score), held(board)) == (ALL, set())


def test_management_an_unknown_type_is_answered_with_the_known_ones(ask: Ask, functions: Any) -> None:
    for name in ("scorin", "", "%3Cscript%3E", "Scoring"):
        got = ask("POST", f"/invalidate/{name}")
        assert got.status == 404
        assert got.json["types"] == ["default", "scoring", "dash/board & <b>"]
        assert "scoring" in got.json["message"]
        assert b"<" not in got.body
    assert held(functions[0]) == ALL


def test_management_invalidates_a_key(ask: Ask, functions: Any) -> None:
    score, board = functions
    key = score.cache_key("a")
    assert ask("POST", "/invalidate-key", {"key": key}).json == done("key", key, 1)
    assert ask("POST", "/invalidate-key", {"key": key}).json["count"] == 0
    assert (held(score), held(board)) == (ALL - {"a"}, ALL)


@pytest.mark.parametrize("text", [XSS, SQL])
def test_management_a_key_with_tags_and_sql_is_text_like_any_other(ask: Ask, functions: Any, text: str) -> None:
    score, board = functions
    key = score.cache_key(text)
    got = ask("POST", "/invalidate-key", {"key": key})
    assert (got.json["target"], got.json["count"]) == (key, 1)
    assert got.headers["content-type"] == "application/json"
    assert b"<" not in got.body
    assert b">" not in got.body
    assert b"&" not in got.body
    assert (held(score), held(board)) == (ALL - {text}, ALL)


def test_management_invalidates_a_tag(ask: Ask, functions: Any) -> None:
    score, board = functions
    assert ask("POST", "/invalidate-tag", {"tag": "asin:a"}).json == done("tag", "asin:a", None)
    assert ask("POST", "/invalidate-tag", {"tag": f"asin:{SQL}"}).status == 200
    assert (held(score), held(board)) == ({"b", XSS}, ALL)


def test_management_invalidates_by_pattern(ask: Ask, functions: Any) -> None:
    score, board = functions
    assert ask("POST", "/invalidate-pattern", {"pattern": "score:'?'"}).json == done("pattern", "score:'?'", 2)
    assert (held(score), held(board)) == ({XSS, SQL}, ALL)
    assert ask("POST", "/invalidate-pattern", {"pattern": "board:*"}).json["count"] == 4
    assert (held(score), held(board)) == ({XSS, SQL}, set())


def test_management_a_pattern_with_glob_and_sql_characters_means_what_globs_mean(ask: Ask, cache: Cache) -> None:
    keys = ["a[1]", "a1", "a%", "a_b", "axb", "a';--", "a*", "a\\", SQL]
    for pattern, gone in (
        ("a[[]1]", {"a[1]"}),
        ("a[1]", {"a1"}),
        ("a%", {"a%"}),
        ("a_b", {"a_b"}),
        ("a';--", {"a';--"}),
        ("a[*]", {"a*"}),
        ("a\\", {"a\\"}),
        ("a?b", {"a_b", "axb"}),
        ("*DROP TABLE*", {SQL}),
        ("a", set()),
        ("[", set()),
        ("[!a]*", {SQL}),
        ("%", set()),
    ):
        for key in keys:
            cache.set(key, 1)
        got = ask("POST", "/invalidate-pattern", {"pattern": pattern})
        assert (got.status, got.json["count"]) == (200, len(gone)), pattern
        assert {key for key in keys if not cache.contains(key)} == gone, pattern


def test_management_stale_keeps_the_values(ask: Ask, functions: Any) -> None:
    score, _ = functions
    for path, body in (
        ("/invalidate/scoring", {}),
        ("/invalidate-key", {"key": score.cache_key("a")}),
        ("/invalidate-tag", {"tag": "asin:a"}),
        ("/invalidate-pattern", {"pattern": "score:*"}),
        ("/clear-all", {}),
    ):
        score.refresh("a")
        before = score.cache_info().stale_hits
        assert ask("POST", path, {**body, "stale": True}).json["stale"] is True
        assert score("a") == "a"
        assert score.cache_info().stale_hits == before + 1, path
        assert ask("POST", path, {**body, "stale": False}).json["stale"] is False


def test_management_clear_all_empties_this_cache(ask: Ask, functions: Any, cache: Cache) -> None:
    other = Cache(ttl=60)
    other.set("k", 1)
    seen: list[hooks.Event] = []
    cache.subscribe(seen.append)
    assert ask("POST", "/clear-all").json == done("all", None, None)
    assert [held(function) for function in functions] == [set(), set()]
    assert other.contains("k")
    assert seen == [hooks.Invalidated("all", "", False)]


# ----------------------------------------------------------------------------------------------------------- bad bodies

CHANGES = ["/invalidate-key", "/invalidate-tag", "/invalidate-pattern", "/invalidate/scoring", "/clear-all"]


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b"[]", b'"key"', b"null", b"1", b"\xff\xfe", b"[" * 60_000, b"9" * 60_000, b'{"a":' * 9000],
    ids=["cut", "text", "list", "str", "null", "int", "bytes", "deep", "digits", "deep-objects"],
)
def test_management_a_body_that_is_no_json_object_is_refused(ask: Ask, functions: Any, path: str, body: bytes) -> None:
    got = ask("POST", path, body, headers={"Content-Type": "application/json"})
    assert got.status == 400
    assert "accepted: a JSON object" in got.json["message"]
    assert [held(function) for function in functions] == [ALL, ALL]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/invalidate-key", {}, "key"),
        ("/invalidate-key", {"key": ""}, "key"),
        ("/invalidate-key", {"key": 1}, "key"),
        ("/invalidate-key", {"key": None}, "key"),
        ("/invalidate-key", {"key": ["a"]}, "key"),
        ("/invalidate-key", {"key": "\ud800"}, "key"),
        ("/invalidate-tag", {"tag": "\ud800"}, "tag"),
        ("/invalidate-tag", {"key": "a"}, "key"),
        ("/invalidate-pattern", {"pattern": "x" * 1025}, "pattern"),
        ("/invalidate-pattern", {"pattern": "*a" * 33}, "pattern"),
        ("/invalidate-pattern", {"pattern": "[a]" * 33}, "pattern"),
        ("/invalidate-pattern", {"pattern": "?" * 33}, "pattern"),
        ("/invalidate-key", {"key": "a", "stale": "yes"}, "stale"),
        ("/invalidate-key", {"key": "a", "stale": 1}, "stale"),
        ("/invalidate-key", {"key": "a", "all": True}, "all"),
        ("/clear-all", {"stale": None}, "stale"),
        ("/clear-all", {"key": "a"}, "key"),
        ("/invalidate/scoring", {"type": "scoring"}, "type"),
        ("/invalidate/scoring", {XSS: 1}, XSS),
        ("/idempotency-release", {}, "record"),
        ("/idempotency-release", {"record": "A" * 32}, "record"),
        ("/idempotency-release", {"record": "0" * 33}, "record"),
        ("/idempotency-release", {"record": "0" * 32, "stale": False}, "stale"),
    ],
)
def test_management_a_bad_field_is_named_with_its_value_and_what_is_accepted(
    ask: Ask, functions: Any, path: str, body: dict[str, Any], field: str
) -> None:
    got = ask("POST", path, body)
    assert got.status == 400
    assert got.json["field"] == field
    assert set(got.json) == {"status", "message", "field", "value", "accepted"}
    assert len(got.body) < 2000
    assert b"<" not in got.body
    assert [held(function) for function in functions] == [ALL, ALL]


def test_management_a_pattern_at_its_limits_is_taken(ask: Ask, functions: Any) -> None:
    assert ask("POST", "/invalidate-pattern", {"pattern": "x" * 1024}).json["count"] == 0
    assert ask("POST", "/invalidate-pattern", {"pattern": "*" * 32}).json["count"] == 8


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("chunked", [False, True])
def test_management_a_body_over_the_limit_is_refused_before_it_is_parsed(
    ask: Ask, functions: Any, path: str, chunked: bool
) -> None:
    headers = {"Content-Type": "application/json"}
    fits = b'{"stale": false' + b" " * (65_536 - 16) + b"}"
    for body, status in ((fits + b" ", 413), (b"{" * 500_000, 413)):
        got = ask("POST", path, body, headers=headers, chunked=chunked)
        assert got.status == status
        assert "65536" in got.json["message"]
    assert [held(function) for function in functions] == [ALL, ALL]
    assert len(fits) == 65_536
    got = ask("POST", path, fits, headers=headers, chunked=chunked)
    assert got.status == (400 if path.startswith("/invalidate-") else 200), "the limit itself fits, and was read whole"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_management_a_length_over_the_limit_is_refused_without_reading(framework: str, cache: Cache) -> None:
    ask = client(framework, Management(cache, auth=TOKEN))
    for length in ("65537", "9" * 30):
        got = ask("POST", "/clear-all", {**BEARER, "Content-Type": "application/json", "Content-Length": length}, b"{")
        assert got.status == 413, length


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_management_another_content_type_is_refused(ask: Ask, functions: Any, kind: str) -> None:
    got = ask("POST", "/clear-all", b'{"stale": false}', headers={"Content-Type": kind})
    assert got.status == 415
    assert "application/json" in got.json["message"]
    assert held(functions[0]) == ALL
    assert ask("POST", "/clear-all", b"{}", headers={"Content-Type": "Application/JSON; charset=utf-8"}).status == 200


def test_management_many_parameters_are_refused(ask: Ask) -> None:
    assert ask("GET", "/hot-keys?" + "&".join(f"a{i}=1" for i in range(100))).status == 400


# -------------------------------------------------------------------------------------------------------------- FastAPI


def operations(management: Management) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in fastapi_app(management).openapi()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path.removeprefix("/api/cache"), operation


def test_management_openapi_names_every_endpoint_with_body_and_answers(cache: Cache) -> None:
    found = {
        (method, path): operation
        for method, path, operation in operations(
            Management(cache, auth=TOKEN, webhook_secret=SECRET, show_values=True)
        )
    }
    assert set(found) == {
        *(("GET", path) for path in ("/stats", "/health", "/alerts", "/hot-keys", "/metrics", "/entry")),
        *(("POST", path) for path in ("/invalidate/{type}", "/invalidate-key", "/invalidate-tag")),
        *(("POST", path) for path in ("/invalidate-pattern", "/clear-all", "/webhook")),
        *(("GET", "/idempotency-unknown"), ("POST", "/idempotency-release")),
    }
    for (method, path), operation in found.items():
        assert ("requestBody" in operation) == (method == "POST"), path
        assert operation["security"] == [{"stillwarm": []}] if path != "/webhook" else "security" not in operation
        assert ("401" in operation["responses"]) == (path != "/webhook")
        assert operation["responses"]["200"]["content"], path
        assert operation["summary"]
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    parameters = {(p["name"], p["in"]) for op in found.values() for p in op.get("parameters", [])}
    assert {("n", "query"), ("key", "query"), ("type", "path"), ("webhook-id", "header")} <= parameters
    schema = found["POST", "/invalidate-pattern"]["requestBody"]["content"]["application/json"]["schema"]
    assert (schema["required"], schema["properties"]["pattern"]["maxLength"]) == (["pattern"], 1024)


def test_management_openapi_of_callable_auth_asks_for_the_header_of_changes(cache: Cache) -> None:
    for method, path, operation in operations(Management(cache, auth=lambda request: True)):
        names = [p["name"] for p in operation.get("parameters", [])]
        assert ("X-Stillwarm" in names) == (method == "POST"), path
        assert "security" not in operation
        assert "403" in operation["responses"]


@pytest.mark.parametrize(
    ("method", "path", "body", "model"),
    [
        ("GET", "/stats", None, _schema.StatsBody),
        ("GET", "/health", None, _schema.HealthBody),
        ("GET", "/alerts", None, _schema.AlertsBody),
        ("GET", "/hot-keys", None, _schema.HotKeysBody),
        ("GET", "/entry?key=score:'a'", None, _schema.EntryBody),
        ("POST", "/invalidate-key", {"key": "a"}, _schema.DoneBody),
        ("POST", "/clear-all", None, _schema.DoneBody),
        ("POST", "/invalidate/nothing", None, _schema.ErrorBody),
        ("POST", "/invalidate-key", {"key": 1}, _schema.ErrorBody),
        ("GET", "/idempotency-unknown", None, _schema.UnknownBody),
        ("POST", "/idempotency-release", {"record": "0" * 32}, _schema.ErrorBody),
    ],
)
def test_management_the_schema_is_what_is_answered(
    cache: Cache, functions: Any, method: str, path: str, body: Any, model: type[pydantic.BaseModel]
) -> None:
    ask = client("fastapi", Management(cache, auth=lambda request: True, show_values=True))
    got = ask(method, path, CHANGE, body)
    read = model.model_validate(got.json, strict=True, extra="forbid")
    assert read.model_dump(exclude_unset=True) == got.json


def test_management_what_reads_every_entry_runs_in_a_thread(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    ran = []
    real = _core.snapshot
    monkeypatch.setattr(_core, "snapshot", lambda *a: ran.append(threading.current_thread()) or real(*a))
    ask = client("fastapi", Management(cache, auth=TOKEN, show_values=True, alerts={"min_entries": 1}))
    cache.set("k", 1)
    for method, path, body in (
        ("GET", "/hot-keys", None),
        ("GET", "/entry?key=k", None),
        ("GET", "/health", None),
        ("POST", "/invalidate-pattern", {"pattern": "*"}),
    ):
        ran.clear()
        assert ask(method, path, BEARER, body).status == 200
        assert ran, path
        assert threading.current_thread() not in ran, path


def test_management_routers_of_several_apps_share_nothing(cache: Cache) -> None:
    management = Management(cache, auth=TOKEN)
    assert router(management) is not router(management)
