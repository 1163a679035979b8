"""Many cold requests at once: one load, also when its client leaves, fails or may not share, at each front.

Thread rule: requests are held inside of the app until all of them wait (`Server.race`).
Refuses to know: how long anything takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fastapi
import flask
import pytest

import stillwarm.fastapi
import stillwarm.flask
from fronts import (
    Reply,
    Seen,
    Serve,
    ask_asgi,
    ask_wsgi,
    each_decorator,
    each_front,
    each_middleware,
    environ_of,
    numbered,
    serving,
    until,
)
from stillwarm import Cache
from stillwarm.web import front as front_module
from stillwarm.web._counts import counts

CROWD = 100


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


@each_front
def test_web_stampede_is_one_load(front: str, serve: Serve, warm_cache: Cache) -> None:
    server = serve(front, numbered(), ttl=60)
    answers = server.race(*[{}] * CROWD)
    assert server.loads == 1
    assert [answer.body for answer in answers] == [b"1"] * CROWD
    assert sorted(answer.cache for answer in answers) == ["MISS"] * CROWD
    assert sum("collapsed" in answer.cache_status for answer in answers) == CROWD - 1
    assert warm_cache.stats().joined == CROWD - 1


@each_front
def test_web_stampede_at_the_end_of_a_life_is_one_load(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(), ttl=60, stale_if_error=0)
    server.ask()
    warm_clock.move(61)
    assert {answer.body for answer in server.race(*[{}] * 10)} == {b"2"}
    assert server.loads == 2


@each_decorator
def test_web_stampede_an_error_of_the_app_is_shared_once(front: str, serve: Serve) -> None:
    def failing(seen: Seen) -> Reply:
        raise RuntimeError(f"failure {seen.number}")

    server = serve(front, failing)
    answers = server.race(*[{}] * 10)
    assert [answer.status for answer in answers] == [500] * 10
    assert server.loads == 1
    assert server.cache.stats().flights == 0
    assert server.ask().status == 500
    assert server.loads == 2  # and not remembered


@each_front
def test_web_stampede_after_an_error_the_next_one_loads(front: str, serve: Serve) -> None:
    def once(seen: Seen) -> Reply:
        return Reply(503 if seen.number == 1 else 200, (), b"%d" % seen.number)

    server = serve(front, once, ttl=60)
    assert [server.ask().status for _ in range(3)] == [503, 200, 200]
    assert server.loads == 2


@each_front
def test_web_stampede_of_what_is_not_shared_does_not_queue(front: str, serve: Serve, warm_cache: Cache) -> None:
    server = serve(front, numbered(("Cache-Control", "no-store")), ttl=60)
    first = server.race(*[{}] * 10)  # they wait for one answer, and that is not theirs
    assert len({answer.body for answer in first}) == 10
    joined = warm_cache.stats().joined
    second = server.race(*[{}] * 10)  # and are all inside of the app at once
    assert len({answer.body for answer in second}) == 10
    assert warm_cache.stats().joined == joined
    assert counts(warm_cache)["bypass", "recently-passed"] >= 10


@each_front
def test_web_stampede_what_was_not_shared_is_tried_again(
    front: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([("Cache-Control", "no-store"), ("X-Now", "storable")])
    server = serve(front, lambda seen: Reply(200, [next(replies)], b"%d" % seen.number), ttl=60)
    monkeypatch.setattr(front_module, "PASS_FOR", 0.0)
    assert [server.ask().body for _ in range(3)] == [b"1", b"2", b"2"]


@each_front
@pytest.mark.parametrize("request_", [{"method": "HEAD"}, {"headers": {"range": "bytes=0-0"}}], ids=["head", "range"])
def test_web_stampede_a_part_keeps_nobody_from_sharing_the_whole(
    front: str, serve: Serve, warm_clock: Any, request_: dict[str, Any]
) -> None:
    server = serve(front, numbered(), ttl=10, stale_if_error=60)
    server.ask()
    server.ask(**{**request_, "headers": {"cache-control": "no-cache", **request_.get("headers", {})}})
    warm_clock.move(15)
    server.ask(**request_)
    assert server.ask().cache == "MISS"
    assert server.ask().cache == "HIT"


@each_front
def test_web_stampede_keys_do_not_wait_for_each_other(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60)
    answers = server.race(*({"path": f"/{n % 5}"} for n in range(20)))
    assert server.loads == 5
    assert len({answer.body for answer in answers}) == 5


# ------------------------------------------------------------------------------------------------- the client is gone


@pytest.mark.parametrize("front", ["fastapi", "asgi"])
def test_web_stampede_when_the_leader_is_cancelled_a_follower_leads(
    front: str, serve: Serve, warm_cache: Cache
) -> None:
    server = serve(front, numbered(), ttl=60)

    async def crowd() -> list[Any]:
        server._held = asyncio.Event()
        tasks = [asyncio.ensure_future(ask_asgi(server.app)) for _ in range(5)]
        while server.inside + warm_cache.stats().joined < 5:
            await asyncio.sleep(0)
        tasks[0].cancel()
        while server.inside < 2:  # somebody else is inside
            await asyncio.sleep(0)
        server._held.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert server._loop is not None
    gone, *answers = server._loop.run_until_complete(asyncio.wait_for(crowd(), 20))
    assert isinstance(gone, asyncio.CancelledError)
    assert [answer.body for answer in answers] == [b"2"] * 4
    assert warm_cache.stats().flights == 0
    assert server.ask().cache == "HIT"


@pytest.mark.parametrize("front", ["fastapi", "asgi"])
def test_web_stampede_a_follower_that_is_cancelled_only_leaves(front: str, serve: Serve, warm_cache: Cache) -> None:
    server = serve(front, numbered(), ttl=60)

    async def crowd() -> list[Any]:
        server._held = asyncio.Event()
        tasks = [asyncio.ensure_future(ask_asgi(server.app)) for _ in range(5)]
        while server.inside + warm_cache.stats().joined < 5:
            await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0)
        server._held.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert server._loop is not None
    results = server._loop.run_until_complete(asyncio.wait_for(crowd(), 20))
    assert [getattr(result, "body", None) for result in results] == [b"1", b"1", b"1", None, b"1"]
    assert server.loads == 1


# ------------------------------------------------------------------------------------------------------------ streams


def test_web_stampede_followers_do_not_wait_for_the_end_of_a_wsgi_stream(warm_cache: Cache) -> None:
    calls: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        calls.append(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        yield b"second"

    wrapped = stillwarm.flask.ResponseCache(app, warm_cache, ttl=60)
    open_stream = iter(wrapped(environ_of("/"), lambda *_: lambda data: None))
    assert next(open_stream) == b"first"
    assert ask_wsgi(wrapped).body == b"firstsecond"  # while the first one is still open
    assert list(open_stream) == [b"second"]
    assert len(calls) == 2


async def test_web_stampede_followers_do_not_wait_for_the_end_of_an_asgi_stream(warm_cache: Cache) -> None:
    release, calls = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(1)
        mine = len(calls)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        if mine == 1:
            await release.wait()
        await send({"type": "http.response.body", "body": b"last", "more_body": False})

    wrapped = stillwarm.fastapi.ResponseCache(app, warm_cache, ttl=60)
    leader = asyncio.ensure_future(ask_asgi(wrapped))
    while not calls:
        await asyncio.sleep(0)
    follower = await asyncio.wait_for(ask_asgi(wrapped), 10)
    assert follower.body == b"firstlast"
    assert not leader.done()
    release.set()
    assert (await leader).body == b"firstlast"
    assert warm_cache.stats().flights == 0


@each_middleware
def test_web_stampede_decorator_behind_the_middleware(front: str, warm_cache: Cache) -> None:
    """Both on one cache and one URL: each does its part, and neither waits for the other."""
    calls: list[int] = []
    if front == "wsgi":
        app = flask.Flask("app", static_folder=None)

        def view() -> str:
            calls.append(1)
            return "x"

        app.add_url_rule("/", "view", stillwarm.flask.Stillwarm(warm_cache).cache_response(ttl=60)(view))
        wrapped: Any = stillwarm.flask.ResponseCache(app.wsgi_app, warm_cache, ttl=60)
        answers = [ask_wsgi(wrapped) for _ in range(3)]
    else:
        api = fastapi.FastAPI()

        async def route() -> str:
            calls.append(1)
            return "x"

        api.add_api_route("/", stillwarm.fastapi.Stillwarm(warm_cache).cache_response(ttl=60)(route))
        wrapped = stillwarm.fastapi.ResponseCache(api, warm_cache, ttl=60)
        answers = [asyncio.run(ask_asgi(wrapped)) for _ in range(3)]
    assert len(calls) == 1
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert not [what for (kind, what) in counts(warm_cache) if kind == "warning"]
    until(lambda: warm_cache.stats().flights == 0)
