"""What passes through with a counted warning, and what a write makes invalid, at each of the four fronts.

Thread rule: one thread.
Refuses to know: raw WSGI and ASGI apps (test_web_protocol).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from fronts import Reply, Serve, each_front, each_middleware, numbered, serving
from reliability import children
from stillwarm import Cache
from stillwarm.web._counts import counts


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


@each_front
def test_web_limits_a_body_over_the_limit_is_served_and_not_stored(front: str, serve: Serve) -> None:
    server = serve(front, lambda seen: Reply(200, (), b"x" * 1001), ttl=60, max_body=1000)
    for _ in range(2):
        answer = server.ask()
        assert (answer.status, len(answer.body), answer.cache) == (200, 1001, "BYPASS")
    assert server.cache.stats().entries == 0
    assert ("bypass", "too-large") in counts(server.cache)


@each_front
def test_web_limits_a_key_over_the_limit_is_counted_and_warned_of_once(
    front: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(front, numbered(), ttl=60, max_key=200)
    with caplog.at_level(logging.WARNING, "stillwarm"):
        assert [server.ask("/" + "x" * 300).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert counts(server.cache)["warning", "key over the limit"] == 3
    assert caplog.text.count("key over the limit") == 1
    assert server.ask("/y").body == server.ask("/y").body == b"4"


@each_front
@pytest.mark.parametrize("value", ["max-age=60, , =5", "max-age=60; public", "max-age 60"])
def test_web_limits_a_malformed_header_is_counted_and_served(
    front: str, serve: Serve, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(front, numbered(("Cache-Control", value), ("X-Token", "s3cret")), ttl=60)
    assert [(answer.status, answer.body) for answer in (server.ask(), server.ask())] == [(200, b"1"), (200, b"2")]
    assert server.cache.stats().entries == 0
    assert counts(server.cache)["warning", "malformed header"] == 1  # the second one passed by
    assert "s3cret" not in caplog.text
    assert caplog.text.count("malformed header") == 1


@each_front
def test_web_limits_a_cache_that_is_off_is_not_there(front: str, serve: Serve) -> None:
    with Cache(enabled=False) as off:
        server = serve(front, numbered(), cache=off, ttl=60)
        answers = [server.ask() for _ in range(2)]
        assert [answer.body for answer in answers] == [b"1", b"2"]
        assert all(answer["x-cache"] is answer["cache-status"] is None for answer in answers)


@each_front
@pytest.mark.parametrize(
    ("method", "status", "dropped"),
    [
        ("POST", 200, True),
        ("PUT", 204, True),
        ("PATCH", 201, True),
        ("DELETE", 303, True),
        ("POST", 400, False),
        ("POST", 500, False),
        ("OPTIONS", 200, False),
    ],
)
def test_web_limits_unsafe_methods_invalidate_the_uri(
    front: str, serve: Serve, method: str, status: int, dropped: bool
) -> None:
    server = serve(front, lambda seen: Reply(200 if seen.method == "GET" else status, (), b"%d" % seen.number), ttl=60)
    server.ask("/a?b=1"), server.ask("/a"), server.ask("/other")
    server.ask("/a?b=1", method=method)
    assert server.ask("/a?b=1").cache == ("MISS" if dropped else "HIT")
    assert server.ask("/other").cache == "HIT"


@each_front
def test_web_limits_an_unsafe_method_drops_every_variant(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("Vary", "X-Team")), ttl=60)
    teams = [{"x-team": team} for team in ("red", "blue", "green")]
    assert [server.ask(headers=h).body for h in teams * 2] == [b"1", b"2", b"3"] * 2
    server.ask(method="POST")
    assert [server.ask(headers=h).body for h in teams * 2] == [b"5", b"6", b"7"] * 2


@each_front
def test_web_limits_a_variant_that_depends_on_more_makes_a_new_record(front: str, serve: Serve) -> None:
    def answered(seen: Any) -> Reply:
        vary = "X-Team, X-Size" if seen.headers.get("x-team") == "blue" else "X-Team"
        return Reply(200, [("Vary", vary)], b"%d" % seen.number)

    server = serve(front, answered, ttl=60)
    small, large = {"x-team": "blue", "x-size": "s"}, {"x-team": "blue", "x-size": "l"}
    server.ask(headers={"x-team": "red"})
    for headers in (small, large, small, large):
        server.ask(headers=headers)
    bodies = [server.ask(headers=headers).body for headers in (small, large, small, large)]
    assert bodies[0] != bodies[1]
    assert bodies[:2] == bodies[2:]


@each_middleware
def test_web_limits_apps_with_caches_of_their_own_share_nothing(front: str, serve: Serve) -> None:
    with Cache() as other:
        one, two = (
            serve(front, numbered(), ttl=60),
            serve(front, lambda seen: Reply(200, (), b"two"), cache=other, ttl=60),
        )
        assert [one.ask().body, two.ask().body, one.ask().body, two.ask().body] == [b"1", b"two", b"1", b"two"]


@pytest.mark.forks
def test_web_limits_a_child_is_answered_although_the_parent_held_locks() -> None:
    ended = children.run("fork_web")
    assert (ended.code, ended.output, ended.errors) == (0, "child 0\n", "")
