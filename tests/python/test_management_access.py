"""Who may use the management endpoints, over Flask and FastAPI: the matrix of methods, credentials and origins.

Thread rule: one thread.
Refuses to know: what the endpoints do.
"""

from __future__ import annotations

import functools
import hmac
import io
import itertools
import logging
from typing import Any

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from managing import BEARER, CHANGE, FRAMEWORKS, SECRET, TOKEN, Ask, client, fastapi_app, flask_app, lines
from stillwarm import Cache, ConfigError
from stillwarm.web import _access
from stillwarm.web._blueprint import blueprint
from stillwarm.web.management import Management

READS = ("/stats", "/health", "/alerts", "/hot-keys", "/metrics", "/idempotency-unknown")
CHANGES = ("/clear-all", "/invalidate/default", "/invalidate-key", "/invalidate-tag", "/invalidate-pattern")
CHANGES += ("/idempotency-release",)
SESSION = {"Cookie": "session=admin"}


@pytest.fixture
def cache() -> Cache:
    return Cache(ttl=60)


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def has_session(request: Any) -> bool:
    return bool(request.cookies.get("session") == "admin")


def mounted(framework: str, cache: Cache, auth: Any) -> Ask:
    return client(framework, Management(cache, auth=auth))


# ----------------------------------------------------------------------------------------------------------- the matrix

CREDENTIALS = {
    "none": {},
    "wrong token": {"Authorization": "Bearer correct-horse-battery-stapl"},
    "longer token": {"Authorization": f"Bearer {TOKEN}e"},
    "empty token": {"Authorization": "Bearer "},
    "other scheme": {"Authorization": f"Basic {TOKEN}"},
    "bare token": {"Authorization": TOKEN},
    "token": BEARER,
    "token, other case": {"Authorization": f"bEARER  {TOKEN}"},
    "session": SESSION,
}
SENDERS = {
    "no browser": {},
    "no browser, header": CHANGE,
    "same origin": {**CHANGE, "Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    "same origin, its port": {**CHANGE, "Origin": "http://localhost:80"},
    "typed in": {**CHANGE, "Sec-Fetch-Site": "none"},
    "same origin, no header": {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    "wrong header": {"X-Stillwarm": "0", "Sec-Fetch-Site": "same-origin"},
    "same site": {**CHANGE, "Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"},
    "cross site": {**CHANGE, "Sec-Fetch-Site": "cross-site"},
    "old browser, other origin": {**CHANGE, "Origin": "http://evil.example"},
    "other port": {**CHANGE, "Origin": "http://localhost:8000"},
    "look-alike": {**CHANGE, "Origin": "http://localhost.evil.example"},
    "user info": {**CHANGE, "Origin": "http://localhost@evil.example"},
    "null origin": {**CHANGE, "Origin": "null"},
    "no origin": {**CHANGE, "Origin": ""},
    "broken origin": {**CHANGE, "Origin": "http://[localhost"},
}
FROM_HERE = {"no browser, header", "same origin", "same origin, its port", "typed in"}
KNOWN = {"token", "token, other case"}


def expected(auth: str, method: str, credentials: str, sender: str) -> int:
    """What the matrix says: the status of GET /stats, POST /clear-all, and of methods that neither takes."""
    if auth == "token" and credentials not in KNOWN:
        return 401
    if auth == "callable" and credentials != "session":
        return 403
    if method not in ("GET", "HEAD", "POST"):
        return 405
    if method == "POST" and auth == "callable" and sender not in FROM_HERE:
        return 403
    return 200


@pytest.mark.parametrize("auth", ["token", "callable"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_management_matrix_of_method_credentials_and_origin(
    framework: str, cache: Cache, auth: str, method: str
) -> None:
    ask = mounted(framework, cache, TOKEN if auth == "token" else has_session)
    seen = set()
    for credentials, sender in itertools.product(CREDENTIALS, SENDERS):
        cache.set("k", 1)
        path = "/clear-all" if method == "POST" else "/stats"
        got = ask(method, path, {**CREDENTIALS[credentials], **SENDERS[sender]})
        status = expected(auth, method, credentials, sender)
        assert got.status == status, (credentials, sender, got)
        assert cache.contains("k") is not (method == "POST" and status == 200), (credentials, sender)
        if status == 401:
            assert got.headers["www-authenticate"] == 'Bearer realm="stillwarm"'
        if status == 405:
            assert got.headers["allow"] == "GET, HEAD"
        assert got.headers["cache-control"] == "no-store"
        seen.add(status)
    assert len(seen) >= 2


@pytest.mark.parametrize("path", [*READS, *CHANGES, "/nothing", "/entry", "/invalidate/"])
def test_management_every_endpoint_asks_who_it_is_before_anything_else(framework: str, cache: Cache, path: str) -> None:
    cache.set("k", 1)
    for auth, status in ((TOKEN, 401), (has_session, 403)):
        ask = mounted(framework, cache, auth)
        for method in ("GET", "POST", "DELETE"):
            got = ask(method, path, CHANGE, b"{ not json" + b" " * 70_000)
            assert got.status == status, (method, got)
            assert b"shop" not in got.body
    assert cache.contains("k")


@pytest.mark.parametrize("path", READS)
def test_management_a_get_changes_nothing_and_a_post_there_is_refused(framework: str, cache: Cache, path: str) -> None:
    ask = mounted(framework, cache, TOKEN)
    cache.set("k", 1)
    assert ask("GET", path, BEARER).status == 200
    got = ask("POST", path, BEARER, {})
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")
    assert cache.contains("k")


@pytest.mark.parametrize("path", CHANGES)
def test_management_a_change_takes_post_only(framework: str, cache: Cache, path: str) -> None:
    ask = mounted(framework, cache, TOKEN)
    cache.set("k", 1)
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        got = ask(method, path, BEARER)
        assert (got.status, got.headers["allow"]) == (405, "POST"), method
    assert cache.contains("k")


def test_management_the_page_needs_no_token_but_a_callable_is_asked(framework: str, cache: Cache) -> None:
    by_token = mounted(framework, cache, TOKEN)
    by_session = mounted(framework, cache, has_session)
    for path in ("/", "/page.js"):
        assert by_token("GET", path).status == 200
        assert by_session("GET", path).status == 403
        assert by_session("GET", path, SESSION).status == 200
        assert by_token("POST", path).status == 405


# ------------------------------------------------------------------------------------------------- what opens the door


def test_management_is_not_made_without_auth(cache: Cache) -> None:
    for arguments in ({}, {"auth": None}):
        with pytest.raises(ConfigError, match="not mounted without"):
            Management(cache, **arguments)


@pytest.mark.parametrize(
    "auth", [True, 1, b"x" * 20, ["a"], "", "short", "fifteen chars..", "with space in between", "x" * 20 + "\n"]
)
def test_management_auth_of_another_kind_is_refused_and_not_quoted(cache: Cache, auth: Any) -> None:
    with pytest.raises(ConfigError, match=r"^auth.*accepted: a callable") as error:
        Management(cache, auth=auth)
    if isinstance(auth, str) and auth:
        assert auth not in str(error.value)


@pytest.mark.parametrize("said", [1, "yes", [1], object(), None, 0, False])
def test_management_a_callable_opens_with_true_and_nothing_else(framework: str, cache: Cache, said: object) -> None:
    assert mounted(framework, cache, lambda request: said)("GET", "/stats").status == 403
    assert mounted(framework, cache, lambda request: True)("GET", "/stats").status == 200


def test_management_a_callable_that_fails_refuses_and_is_logged(
    framework: str, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: Any) -> bool:
        raise RuntimeError("the session store is down")

    got = mounted(framework, cache, broken)("GET", "/stats")
    assert got.status == 403
    assert b"session store" not in got.body
    assert "the session store is down" in lines(caplog.records)


def test_management_a_callable_gets_the_request_of_its_framework(framework: str, cache: Cache) -> None:
    seen = []

    def check(request: Any) -> bool:
        seen.append((request.method, request.headers["X-Mine"]))
        return True

    mounted(framework, cache, check)("GET", "/stats", {"X-Mine": "me"})
    assert seen == [("GET", "me")]


async def check_async(request: Any) -> bool:
    return has_session(request)


class CheckAsync:
    async def __call__(self, request: Any) -> bool:
        return has_session(request)


@pytest.mark.parametrize(
    "check", [check_async, CheckAsync(), functools.partial(check_async)], ids=["def", "object", "partial"]
)
def test_management_a_coroutine_function_is_awaited_in_fastapi_and_refused_in_flask(cache: Cache, check: Any) -> None:
    ask = mounted("fastapi", cache, check)
    assert ask("GET", "/stats", SESSION).status == 200
    assert ask("GET", "/stats").status == 403
    with pytest.raises(ConfigError, match="coroutine function"):
        blueprint(Management(cache, auth=check))


def test_management_an_awaitable_out_of_a_plain_callable_opens_only_where_it_is_awaited(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    check = lambda request: check_async(request)  # noqa: E731
    assert mounted("fastapi", cache, check)("GET", "/stats", SESSION).status == 200
    assert mounted("fastapi", cache, check)("GET", "/stats").status == 403
    assert mounted("flask", cache, check)("GET", "/stats", SESSION).status == 403
    assert "must not be awaitable" in lines(caplog.records)


def test_management_the_callable_is_not_asked_for_a_webhook(framework: str, cache: Cache) -> None:
    asked: list[Any] = []
    ask = client(framework, Management(cache, auth=asked.append, webhook_secret=SECRET))
    assert ask("POST", "/webhook", {}, {}).status == 403
    assert asked == []
    ask("GET", "/stats")
    assert len(asked) == 1


# --------------------------------------------------------------------------------------------------------- the token


def test_management_tokens_are_compared_in_constant_time(
    framework: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def spy(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return real(given, right)

    monkeypatch.setattr(_access.hmac, "compare_digest", spy)
    ask = mounted(framework, cache, TOKEN)
    for given in ("", "Bearer x", f"Bearer {TOKEN}", f"Basic {TOKEN}", "Bearer " + "x" * 5000):
        compared.clear()
        ask("GET", "/stats", {"Authorization": given})
        assert len(compared) == 1, given
        assert len(compared[0][0]) == len(compared[0][1]) == 32, "of one length, whatever was given"


def test_management_a_token_with_any_characters_works(framework: str, cache: Cache) -> None:
    token = "schlüssel-für-den-cache-日本"
    ask = mounted(framework, cache, token)
    on_the_wire = token.encode().decode("latin-1")
    assert ask("GET", "/stats", {"Authorization": f"Bearer {on_the_wire}"}).status == 200
    assert ask("GET", "/stats", {"Authorization": "Bearer schl\xfcssel"}).status == 401


def test_management_the_token_is_in_no_log_repr_or_answer(
    framework: str, cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    management = Management(cache, auth=TOKEN, webhook_secret=SECRET)
    ask = client(framework, management)
    bodies = [ask("GET", path, BEARER).body for path in (*READS, "/", "/nothing")]
    bodies += [ask("POST", path, BEARER, {"key": "a"}).body for path in CHANGES]
    bodies += [ask("GET", "/stats", {"Authorization": f"Basic {TOKEN}"}).body]
    monkeypatch.setattr(Cache, "stats", lambda self: 1 / 0)
    failed = ask("GET", "/stats", BEARER)
    bodies.append(failed.body)
    assert failed.status == 500
    assert "ZeroDivisionError" in lines(caplog.records), "the log was looked at"
    texts = [lines(caplog.records), *map(str, bodies)]
    texts += [repr(management.access), repr(management)]
    texts += [repr(getattr(part, name, None)) for part in (management, management.access) for name in part.__slots__]
    for text in texts:
        assert TOKEN not in text
        assert SECRET[6:] not in text


def test_management_flask_keeps_its_answers_when_the_app_limits_bodies(cache: Cache) -> None:
    app = flask_app(Management(cache, auth=TOKEN))
    app.config["MAX_CONTENT_LENGTH"] = 100
    got = client("flask", app=app)("POST", "/invalidate-key", BEARER, {"key": "x" * 200})
    assert (got.status, got.json["status"]) == (413, "error")


class Endless(io.RawIOBase):
    """A body that goes on for ever, and counts what was read of it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.taken += len(buffer)
        assert self.taken < 200_000, "nobody stops reading"
        return len(buffer)


@pytest.mark.parametrize("length", [None, "65537", "1000000"])
def test_management_nobody_can_make_flask_read_more_than_the_limit(cache: Cache, length: str | None) -> None:
    body = Endless()
    environ = create_environ(
        "/api/cache/clear-all", method="POST", headers={"Content-Type": "application/json", **BEARER}
    )
    environ |= {"wsgi.input": io.BufferedReader(body, 1024), "wsgi.input_terminated": True}
    environ |= {"HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {"CONTENT_LENGTH": length}
    if length is None:
        environ.pop("CONTENT_LENGTH", None)
    _, status, _ = run_wsgi_app(flask_app(Management(cache, auth=TOKEN)), environ)
    assert status.startswith("413")
    assert (body.taken > 65_536) == (length is None)


@pytest.mark.parametrize("length", [None, "65537", "1000000"])
async def test_management_nobody_can_make_fastapi_read_more_than_the_limit(cache: Cache, length: str | None) -> None:
    taken = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1000
        assert taken < 200_000, "nobody stops reading"
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-type", b"application/json")]
    headers += [(b"content-length", length.encode())] if length else []
    scope = {"type": "http", "method": "POST", "path": "/api/cache/clear-all", "query_string": b"", "headers": headers}
    await fastapi_app(Management(cache, auth=TOKEN))(scope, receive, send)
    assert sent[0]["status"] == 413
    assert (taken > 65_536) == (length is None)


@pytest.mark.parametrize("auth", [TOKEN, has_session], ids=["token", "callable"])
async def test_management_half_a_body_changes_nothing(cache: Cache, auth: Any) -> None:
    cache.set("k", 1)
    messages = iter([{"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    given = {**BEARER, **SESSION, **CHANGE, "Content-Type": "application/json"}
    headers = [(name.lower().encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "path": "/api/cache/clear-all", "query_string": b"", "headers": headers}
    await fastapi_app(Management(cache, auth=auth))(scope, receive, send)
    assert sent[0]["status"] == 400
    assert cache.contains("k")
