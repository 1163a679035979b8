"""What belongs to one user stays with that user: `per_user=`, sessions, dependencies.

Thread rule: requests in flight at once are held by `Server.race`.
Refuses to know: what HTTP itself forbids (test_web_privacy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import fastapi
import flask
import pytest
import starlette.middleware.sessions

import stillwarm.fastapi
import stillwarm.flask
from fronts import Reply, Seen, Serve, each_decorator, numbered, serving
from stillwarm import Cache

SESSION = "of-the-tests"


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


def user_of(front: str) -> Any:
    """`per_user=` that knows its user by a header."""
    if front == "flask":
        return lambda: flask.request.headers.get("x-user")
    return lambda request: request.headers.get("x-user")


def personal(seen: Seen) -> Reply:
    return Reply(200, [("Cache-Control", "private")], f"{seen.headers.get('x-user')} {seen.number}".encode())


# --------------------------------------------------------------------------------------------------------- per_user=


@each_decorator
def test_web_users_each_gets_an_answer_of_their_own(front: str, serve: Serve) -> None:
    server = serve(front, personal, per_user=user_of(front))
    users = ["alice", "bob", "alice", "bob"]
    answers = [server.ask(headers={"x-user": user, "cookie": "a=1", "authorization": "x"}) for user in users]
    assert [answer.body for answer in answers] == [b"alice 1", b"bob 2", b"alice 1", b"bob 2"]
    assert [answer.cache for answer in answers] == ["MISS", "MISS", "HIT", "HIT"]


@each_decorator
def test_web_users_at_once_do_not_share(front: str, serve: Serve) -> None:
    server = serve(front, personal, per_user=user_of(front))
    users = ["alice", "bob", "alice", "carol", "bob"]
    answers = server.race(*({"headers": {"x-user": user}} for user in users))
    assert [answer.body.decode().split()[0] for answer in answers] == users
    assert server.loads == 3


@each_decorator
@pytest.mark.parametrize(
    ("one", "other"), [(None, "None"), (None, ""), ("a", "A"), ("a", "a\n"), ("a\nvary=b", "a"), ("-", None)]
)
def test_web_users_names_are_told_apart(front: str, serve: Serve, one: str | None, other: str | None) -> None:
    names = iter([one, other, one, other])
    varies = iter(["c", "b\nvary=c"] * 2)
    server = serve(front, numbered(), per_user=lambda *_: next(names), vary_on=lambda *_: next(varies))
    assert [server.ask().body for _ in range(4)] == [b"1", b"2", b"1", b"2"]


@each_decorator
def test_web_users_true_means_whoever_has_these_credentials(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), per_user=True)
    headers: list[dict[str, str]] = [
        {},
        {"authorization": "a"},
        {"authorization": "b"},
        {"cookie": "s=a"},
        {"cookie": "s=b"},
        {"authorization": "a", "cookie": "s=a"},
        {"cookie": "a"},
        {"authorization": ""},
    ]
    assert [server.ask(headers=h).body for h in headers + headers] == [b"%d" % n for n in range(1, 9)] * 2


@each_decorator
def test_web_users_names_are_in_no_key(front: str, serve: Serve, warm_cache: Cache) -> None:
    server = serve(front, personal, per_user=user_of(front))
    server.ask(headers={"x-user": "alice@example.test"})
    assert warm_cache.stats().entries == 1
    assert "alice" not in str(warm_cache.top(10)) + str(warm_cache.stats())


@each_decorator
def test_web_users_no_path_leads_to_a_users_entry(front: str, serve: Serve, warm_cache: Cache) -> None:
    """What a key says of a user can be worked out: it must not be a way in, through a route with a key of its own."""
    own = {"key": (lambda **values: values["path"]), "ttl": 60, "type": "product"}
    private = serve(front, personal, per_user=user_of(front), **own)
    public = serve(front, lambda seen: Reply(200, (), b"public"), **own)
    private.ask("/page", headers={"x-user": "alice"})
    (key,) = [entry.key for entry in warm_cache.top(10)] or [""]
    assert key.startswith("cache:product:page~")
    assert public.ask("/" + key.removeprefix("cache:product:")).body == b"public"


@each_decorator
def test_web_users_cookies_of_one_name_all_count(front: str, serve: Serve) -> None:
    # Frameworks differ in which of two cookies they take, and names of cookies differ by case.
    server = serve(front, numbered(), vary_on=["cookie:theme"])
    cookies = ["theme=dark", "theme=evil; theme=dark", "theme=dark; theme=evil", "theme=evil; Theme=dark", "Theme=dark"]
    bodies = [server.ask(headers={"cookie": cookie}).body for cookie in cookies]
    assert len(set(bodies)) == 5
    assert server.ask(headers={"cookie": "other=1; theme=dark"}).body == bodies[0]


# ----------------------------------------------------------------------------------------------------------- sessions


def flask_app() -> flask.Flask:
    app = flask.Flask("app", static_folder=None)
    app.secret_key = SESSION
    return app


def fastapi_app() -> fastapi.FastAPI:
    app = fastapi.FastAPI(openapi_url=None)
    app.add_middleware(starlette.middleware.sessions.SessionMiddleware, secret_key=SESSION)
    return app


def session_app(front: str, cache: Cache, **options: Any) -> tuple[Any, list[str]]:
    """/write writes the session, /read reads it, /same leaves it alone; and what was called."""
    called: list[str] = []
    if front == "flask":
        app = flask_app()
        cached = stillwarm.flask.Stillwarm(cache).cache_response(ttl=60, **options)

        @app.get("/write")
        @cached
        def write() -> str:
            called.append("write")
            flask.session["csrf"] = str(len(called))
            return flask.session["csrf"]  # type: ignore[no-any-return]

        @app.get("/read")
        @cached
        def read() -> str:
            called.append("read")
            return str(flask.session.get("csrf"))

        return app, called
    api = fastapi_app()
    warm = stillwarm.fastapi.Stillwarm(cache).cache_response(ttl=60, **options)

    @api.get("/write")
    @warm
    async def write_too(request: fastapi.Request) -> str:
        called.append("write")
        request.session["csrf"] = str(len(called))
        return str(request.session["csrf"])

    @api.get("/read")
    @warm
    async def read_too(request: fastapi.Request) -> str:
        called.append("read")
        return str(request.session.get("csrf"))

    return api, called


@each_decorator
@pytest.mark.parametrize("options", [{}, {"vary_on": ()}], ids=["as it is", "cookies declared"])
def test_web_users_an_answer_that_writes_the_session_is_not_stored(
    front: str, serve: Serve, warm_cache: Cache, options: dict[str, Any]
) -> None:
    app, called = session_app(front, warm_cache, **options)
    server = serve(front, numbered(), app=app)
    answers = [server.ask("/write") for _ in range(2)]
    assert len(called) == 2
    assert all("session=" in answer["set-cookie"] for answer in answers)
    assert len({answer.body for answer in answers}) == 2
    assert warm_cache.stats().entries == 0


@each_decorator
@pytest.mark.parametrize("options", [{}, {"vary_on": ()}], ids=["as it is", "cookies declared"])
def test_web_users_an_answer_that_reads_the_session_is_not_stored(
    front: str, serve: Serve, warm_cache: Cache, options: dict[str, Any]
) -> None:
    app, called = session_app(front, warm_cache, **options)
    server = serve(front, numbered(), app=app)
    cookie = server.ask("/write")["set-cookie"].partition(";")[0]
    with_session = [server.ask("/read", headers={"cookie": cookie}) for _ in range(2)]
    assert {answer.body.strip(b'"') for answer in with_session} == {b"1"}
    assert called == ["write", "read", "read"]
    assert warm_cache.stats().entries == 0


def test_web_users_a_cookie_that_flask_sets_later_is_not_stored(serve: Serve, warm_cache: Cache) -> None:
    app = flask_app()
    calls: list[int] = []

    @app.get("/")
    @stillwarm.flask.Stillwarm(warm_cache).cache_response(ttl=60)
    def view() -> str:
        calls.append(1)

        @flask.after_this_request
        def set_cookie(response: flask.Response) -> flask.Response:
            response.set_cookie("id", "1")
            return response

        return "x"

    server = serve("flask", numbered(), app=app)
    assert all("id=1" in str(server.ask()["set-cookie"]) for _ in range(2))
    assert len(calls) == 2


def test_web_users_a_cookie_of_the_injected_response_is_not_stored(serve: Serve, warm_cache: Cache) -> None:
    app = fastapi_app()
    calls: list[int] = []

    @app.get("/")
    @stillwarm.fastapi.Stillwarm(warm_cache).cache_response(ttl=60)
    async def route(response: fastapi.Response) -> str:
        calls.append(1)
        response.set_cookie("id", "1")
        return "x"

    server = serve("fastapi", numbered(), app=app)
    assert all("id=1" in str(server.ask()["set-cookie"]) for _ in range(2))
    assert len(calls) == 2


# --------------------------------------------------------------------------------------------- FastAPI's dependencies


def mark(request: fastapi.Request, response: fastapi.Response) -> None:
    response.set_cookie("id", request.headers["x-id"])
    response.headers["X-Id"] = request.headers["x-id"]


def test_web_users_what_dependencies_add_is_not_stored(serve: Serve, warm_cache: Cache) -> None:
    app = fastapi.FastAPI()
    calls: list[int] = []

    @app.get("/")
    @stillwarm.fastapi.Stillwarm(warm_cache).cache_response(ttl=60)
    async def route(response: fastapi.Response, _: Annotated[None, fastapi.Depends(mark)]) -> str:
        calls.append(1)
        response.headers["X-Own"] = "own"
        return "x"

    server = serve("fastapi", numbered(), app=app)
    for n in range(3):
        answer = server.ask(headers={"x-id": str(n)})
        assert answer.cache == ("HIT" if n else "MISS")
        assert str(answer["set-cookie"]).startswith(f"id={n};")
        assert answer["x-id"] == str(n)
        assert answer["x-own"] == "own"
    assert len(calls) == 1


def check(request: fastapi.Request) -> str:
    request.app.state.checked.append(request.headers.get("x-token"))
    if request.headers.get("x-token") != "good":
        raise fastapi.HTTPException(401)
    return "user"


def test_web_users_dependencies_run_on_hits_and_may_refuse(serve: Serve, warm_cache: Cache) -> None:
    app = fastapi.FastAPI()
    app.state.checked = []

    @app.get("/")
    @stillwarm.fastapi.Stillwarm(warm_cache).cache_response(ttl=60)
    async def route(user: Annotated[str, fastapi.Depends(check)]) -> str:
        return user

    server = serve("fastapi", numbered(), app=app)
    tokens = ["good", "bad", "good", None]
    answers = [server.ask(headers={"x-token": token} if token else {}) for token in tokens]
    assert [answer.status for answer in answers] == [200, 401, 200, 401]
    assert answers[2].cache == "HIT"
    assert app.state.checked == tokens


def test_web_users_flask_hooks_run_on_hits_and_may_refuse(serve: Serve, warm_cache: Cache) -> None:
    app = flask_app()

    @app.before_request
    def check() -> None:
        if flask.request.headers.get("x-token") != "good":
            flask.abort(401)

    @app.get("/")
    @stillwarm.flask.Stillwarm(warm_cache).cache_response(ttl=60)
    def view() -> str:
        return "x"

    server = serve("flask", numbered(), app=app)
    answers = [server.ask(headers={"x-token": token}) for token in ("good", "bad", "good")]
    assert [answer.status for answer in answers] == [200, 401, 200]
    assert answers[2].cache == "HIT"
