"""`cache_response` in Flask: every kind of view and app, what a route may declare, and what it refuses at the start.

Thread rule: one thread.
Refuses to know: privacy (test_web_privacy, test_web_users), refreshes, crowds.
"""

from __future__ import annotations

from typing import Any

import flask
import flask.views
import pytest

from fronts import ask_wsgi
from stillwarm import Cache, ConfigError
from stillwarm.flask import CacheType, Stillwarm


@pytest.fixture(name="warm")
def new_warm(warm_cache: Cache) -> Stillwarm:
    return Stillwarm(warm_cache)


@pytest.fixture(name="app")
def new_app() -> flask.Flask:
    app = flask.Flask("app", static_folder=None)
    app.calls = []  # type: ignore[attr-defined]
    return app


def calls(app: Any) -> list[Any]:
    return app.calls  # type: ignore[no-any-return]


def bodies(app: Any, *paths: str, **request: Any) -> list[str]:
    return [ask_wsgi(app, path, **request).body.decode() for path in paths]


# ------------------------------------------------------------------------------------------------- kinds of views


def test_web_flask_a_method_view_is_cached(app: flask.Flask, warm: Stillwarm) -> None:
    class Item(flask.views.MethodView):
        init_every_request = False

        @warm.cache_response(ttl=60)
        def get(self, number: int) -> str:
            calls(app).append(number)
            return f"{number} {len(calls(app))}"

        @warm.cache_response(ttl=60)
        def post(self, number: int) -> str:
            return "written"

    app.add_url_rule("/<int:number>", view_func=Item.as_view("item"))
    assert bodies(app, "/1", "/1", "/2", "/1") == ["1 1", "1 1", "2 2", "1 1"]
    assert ask_wsgi(app, "/1", method="POST").body == b"written"
    assert bodies(app, "/1", "/2") == ["1 3", "2 2"]  # the write made its own URI invalid


def test_web_flask_a_decorated_view_class_is_cached(app: flask.Flask, warm: Stillwarm) -> None:
    class Page(flask.views.View):
        decorators = [warm.cache_response(ttl=60)]  # noqa: RUF012 - Flask's own way

        def dispatch_request(self) -> str:
            calls(app).append(1)
            return str(len(calls(app)))

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert bodies(app, "/", "/") == ["1", "1"]


def test_web_flask_blueprints_are_told_apart(app: flask.Flask, warm: Stillwarm) -> None:
    blueprint = flask.Blueprint("b", __name__)

    @blueprint.get("/x")
    @warm.cache_response(ttl=60)
    def view() -> str:
        calls(app).append(flask.request.path)
        return flask.request.path

    app.register_blueprint(blueprint, url_prefix="/one", name="one")
    app.register_blueprint(blueprint, url_prefix="/two", name="two")
    assert bodies(app, "/one/x", "/two/x", "/one/x") == ["/one/x", "/two/x", "/one/x"]
    assert len(calls(app)) == 2


def test_web_flask_async_views_are_cached(app: flask.Flask, warm: Stillwarm) -> None:
    app.async_to_sync = _run  # type: ignore[method-assign, assignment]

    @app.get("/")
    @warm.cache_response(ttl=60)
    async def view() -> str:
        calls(app).append(1)
        return str(len(calls(app)))

    assert bodies(app, "/", "/") == ["1", "1"]


def _run(view: Any) -> Any:
    import asyncio

    return lambda *args, **kwargs: asyncio.run(view(*args, **kwargs))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: {"a": 1}, (200, b'{"a":1}\n', "application/json")),
        (lambda: [1, 2], (200, b"[1,2]\n", "application/json")),
        (lambda: ("x", 203, {"X-Own": "1"}), (203, b"x", "text/html; charset=utf-8")),
        (lambda: ("", 204), (204, b"", "text/html; charset=utf-8")),
        (lambda: flask.Response(b"\x00\xff", mimetype="image/png"), (200, b"\x00\xff", "image/png")),
        (lambda: flask.redirect("/x", 301), (301, None, "text/html; charset=utf-8")),
    ],
)
def test_web_flask_what_a_view_may_return(app: flask.Flask, warm: Stillwarm, made: Any, expected: Any) -> None:
    @app.get("/")
    @warm.cache_response(ttl=60)
    def view() -> Any:
        calls(app).append(1)
        return made()

    answers = [ask_wsgi(app) for _ in range(2)]
    for answer in answers:
        assert (answer.status, answer["content-type"]) == (expected[0], expected[2])
        assert expected[1] is None or answer.body == expected[1]
    assert len(calls(app)) == 1
    assert answers[1].cache == "HIT"


def test_web_flask_streams_and_files_pass_through(app: flask.Flask, warm: Stillwarm, tmp_path: Any) -> None:
    (tmp_path / "f.txt").write_bytes(b"file")

    @app.get("/stream")
    @warm.cache_response(ttl=60)
    def stream() -> flask.Response:
        return flask.Response(part for part in ("a", "b"))

    @app.get("/file")
    @warm.cache_response(ttl=60)
    def file() -> flask.Response:
        return flask.send_file(tmp_path / "f.txt")

    for path, body in (("/stream", b"ab"), ("/file", b"file")):
        for _ in range(2):
            answer = ask_wsgi(app, path)
            assert (answer.body, answer.cache) == (body, "BYPASS")


def test_web_flask_what_a_view_arranges_for_the_end_happens_once(app: flask.Flask, warm: Stillwarm) -> None:
    @app.get("/")
    @warm.cache_response(ttl=60)
    def view() -> flask.Response:
        response = flask.Response("x")
        response.call_on_close(lambda: calls(app).append("closed"))
        return response

    assert bodies(app, "/", "/") == ["x", "x"]
    assert calls(app) == ["closed"]


def test_web_flask_errorhandlers_run(app: flask.Flask, warm: Stillwarm) -> None:
    @app.errorhandler(404)
    def absent(error: Any) -> tuple[str, int]:
        calls(app).append("handler")
        return "handled", 404

    @app.errorhandler(ValueError)
    def wrong(error: Any) -> tuple[str, int]:
        return f"wrong: {error}", 400

    @app.get("/absent")
    @warm.cache_response(ttl=60)
    def view() -> str:
        calls(app).append("view")
        flask.abort(404)

    @app.get("/wrong")
    @warm.cache_response(ttl=60)
    def other() -> str:
        raise ValueError("mine")

    assert bodies(app, "/absent", "/absent") == ["handled", "handled"]
    assert calls(app) == ["view", "handler"] * 2
    answer = ask_wsgi(app, "/wrong")
    assert (answer.status, answer.body) == (400, b"wrong: mine")


def test_web_flask_absence_is_kept_for_absent_ttl(app: flask.Flask, warm: Stillwarm, warm_clock: Any) -> None:
    @app.errorhandler(404)
    def absent(error: Any) -> tuple[str, int]:
        return f"handled {len(calls(app))}", 404

    @app.get("/")
    @warm.cache_response(ttl=60, absent_ttl=5)
    def view() -> str:
        calls(app).append(1)
        flask.abort(404)

    assert bodies(app, "/", "/") == ["handled 1", "handled 1"]
    assert ask_wsgi(app).status == 404
    warm_clock.move(6)
    assert bodies(app, "/") == ["handled 2"]


# --------------------------------------------------------------------------------------------- what a route declares


def view_of(app: flask.Flask, warm: Stillwarm, *args: Any, rule: str = "/<a>/<b>", **options: Any) -> None:
    @app.route(rule, methods=["GET", "POST", "DELETE"], endpoint=f"{rule}{len(app.url_map._rules)}")
    @warm.cache_response(*args, **options)
    def view(**values: str) -> Any:
        calls(app).append(values)
        if flask.request.method != "GET":
            return "", int(flask.request.headers.get("x-status", 200))
        return str(len(calls(app)))


def test_web_flask_own_keys_replace_the_uri(app: flask.Flask, warm: Stillwarm, warm_cache: Cache) -> None:
    view_of(app, warm, "product", key="product:{a}:{b}")
    assert bodies(app, "/x/y", "/x/y?utm=1", "/x/z") == ["1", "1", "2"]
    assert ask_wsgi(app, "/x/y", host="other.test").body == b"1"
    assert warm_cache.invalidate(key="cache:product:product:x:y") == 1
    assert bodies(app, "/x/y", "/x/z") == ["3", "2"]


def test_web_flask_own_keys_are_injective(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60, key="{a}:{b}")
    paths = [
        "/x:y/z",
        "/x/y:z",
        "/x%253Ay/z",
        "/x~y/z",
        "/x%257Ey/z",
        "/%C3%A9/z",
        "/%25C3%25A9/z",
        "/a~~b/c",
        "/a~b/c",
    ]
    assert len(set(bodies(app, *paths))) == len(paths)


def test_web_flask_own_keys_do_not_hide_users_or_variants(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60, key=lambda a, b: f"{a}", per_user=lambda: flask.request.headers.get("x-user"))
    got = [ask_wsgi(app, "/x/y", headers={"x-user": user}).body for user in ("alice", "bob", "alice")]
    assert got == [b"1", b"2", b"1"]


def test_web_flask_a_key_that_names_no_argument_is_an_error_of_the_route(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60, key="{missing}")
    app.testing = True
    with pytest.raises(ConfigError, match="no argument 'missing'"):
        ask_wsgi(app, "/x/y")


def test_web_flask_vary_on_headers_and_callables(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60, rule="/h/<a>", vary_on=["X-Team", "cookie:theme"])
    view_of(app, warm, ttl=60, rule="/c/<a>", vary_on=lambda: flask.request.args.get("v"), key="c")
    asked: list[dict[str, str]] = [
        {},
        {"x-team": "red"},
        {"x-team": "red", "cookie": "theme=dark; other=1"},
        {"x-team": "red", "cookie": "other=2; theme=dark"},
        {"x-team": "red", "cookie": "other=3"},
    ]
    assert [ask_wsgi(app, "/h/1", headers=h).body for h in asked] == [b"1", b"2", b"3", b"3", b"2"]
    assert bodies(app, "/c/1?v=1", "/c/2?v=2", "/c/3?v=1") == ["4", "5", "4"]


def test_web_flask_unless_keeps_an_answer_out(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60, unless=lambda response: response.get_data() == b"1")
    assert bodies(app, "/a/b", "/c/d", "/c/d") == ["1", "2", "2"]


def test_web_flask_tags_and_invalidates(app: flask.Flask, warm: Stillwarm, warm_cache: Cache) -> None:
    view_of(app, warm, ttl=60, rule="/t/<a>", tags=lambda a: [f"t:{a}", "t"])
    view_of(app, warm, rule="/write/<a>", invalidates=lambda a: [f"t:{a}"])
    view_of(app, warm, rule="/all/<a>", invalidates=["t"])
    view_of(app, warm, rule="/type/<a>", invalidates={"type": "http"})
    view_of(app, warm, rule="/pattern/<a>", invalidates=[{"pattern": "cache:http:GET:http://app.test/t/*"}])
    assert bodies(app, "/t/1", "/t/2", "/t/1") == ["1", "2", "1"]
    ask_wsgi(app, "/write/1", method="POST")
    assert bodies(app, "/t/1", "/t/2") == ["4", "2"]
    for path in ("/all/x", "/type/x", "/pattern/x"):
        before = bodies(app, "/t/1", "/t/2")
        ask_wsgi(app, path, method="DELETE")
        assert not set(bodies(app, "/t/1", "/t/2")) & set(before), path
    before = bodies(app, "/t/1")
    ask_wsgi(app, "/write/1", method="POST", headers={"x-status": "400"})
    assert bodies(app, "/t/1") == before  # a write that failed changes nothing


def test_web_flask_a_type_gives_its_settings_and_the_route_overrides_them(
    app: flask.Flask, warm: Stillwarm, warm_cache: Cache, warm_clock: Any
) -> None:
    warm_cache.define("mine", ttl=10)
    view_of(app, warm, "mine", rule="/a/<a>")
    view_of(app, warm, "mine", rule="/b/<a>", ttl=100)
    view_of(app, warm, CacheType.SEARCH, rule="/c/<a>")
    for path in ("/a/1", "/b/1", "/c/1"):
        ask_wsgi(app, path)
    warm_clock.move(11)
    assert [ask_wsgi(app, path).cache for path in ("/a/1", "/b/1", "/c/1")] == ["MISS", "HIT", "HIT"]
    assert set(warm_cache.stats().types) >= {"mine", "search"}


# ------------------------------------------------------------------------------------------------------ apps and errors


def test_web_flask_an_app_factory_makes_a_cache_from_the_config() -> None:
    warm = Stillwarm()

    def create(namespace: str) -> flask.Flask:
        app = flask.Flask("app", static_folder=None)
        app.config.update(STILLWARM_NAMESPACE=namespace, STILLWARM_MAX_BYTES="1MB", STILLWARM_TTL=30)
        app.add_url_rule("/", "view", view)
        warm.init_app(app)
        return app

    @warm.cache_response()
    def view() -> str:
        return flask.current_app.config["STILLWARM_NAMESPACE"]  # type: ignore[no-any-return]

    one, two = create("one"), create("two")
    assert bodies(one, "/", "/") + bodies(two, "/", "/") == ["one", "one", "two", "two"]
    with one.app_context():
        assert (warm.cache().namespace, warm.cache().stats().max_bytes) == ("one", 1024 * 1024)
        warm.cache().close()
    with two.app_context():
        assert warm.cache().stats().hits == 1
        warm.cache().close()
    with pytest.raises(RuntimeError, match="init_app"):
        warm.cache()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("STILLWARM_MAX_BYTES", "much"),
        ("STILLWARM_MAX_ENTRIES", -1),
        ("STILLWARM_TTL", "soon"),
        ("STILLWARM_NAMESPACE", "not a name"),
        ("STILLWARM_LOAD_THREADS", 0),
        ("STILLWARM_ENABLED", "perhaps"),
    ],
)
def test_web_flask_a_bad_setting_is_named(setting: str, value: Any) -> None:
    app = flask.Flask("app", static_folder=None)
    app.config[setting] = value
    with pytest.raises(ConfigError, match=setting):
        Stillwarm().init_app(app)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("unknown",), {}, "unknown"),
        ((), {}, "ttl"),
        ((), {"ttl": "soon"}, "soon"),
        ((), {"ttl": 60, "colour": 1}, "colour"),
        ((), {"ttl": 60, "per_user": "alice"}, "per_user"),
        ((), {"ttl": 60, "vary_on": "accept"}, "vary_on"),
        ((), {"ttl": 60, "key": "{"}, "key"),
        ((), {"ttl": 60, "invalidates": [5]}, "invalidates"),
        ((), {"ttl": 60, "debug_token": "short"}, "debug_token"),
        ((), {"ttl": 60, "max_body": "big"}, "max_body"),
        ((), {"ttl": 60, "unless": 5}, "unless"),
        ((5,), {}, "type"),
    ],
)
def test_web_flask_what_is_wrong_is_said_when_decorating(
    warm: Stillwarm, args: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        warm.cache_response(*args, **options)(lambda: "x")


def test_web_flask_missing_parentheses_are_noticed(warm: Stillwarm) -> None:
    with pytest.raises(ConfigError, match="parentheses"):

        @warm.cache_response
        def view() -> str:
            return "x"


def test_web_flask_the_view_itself_stays_at_hand(warm: Stillwarm) -> None:
    def view() -> str:
        return "x"

    cached = warm.cache_response(ttl=60)(view)
    assert (cached.__name__, cached.uncached) == ("view", view)  # type: ignore[attr-defined]


def test_web_flask_the_clients_directives_do_not_reach_a_route(app: flask.Flask, warm: Stillwarm) -> None:
    view_of(app, warm, ttl=60)
    for value in ("no-cache", "no-store", "max-age=0", ""):
        assert ask_wsgi(app, "/a/b", headers={"cache-control": value}).body == b"1"
