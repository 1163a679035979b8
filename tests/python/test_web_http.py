"""What the fronts themselves carry out of the standards: header fields of stored, forwarded and partial answers.

Thread rule: one thread; time is moved.
Refuses to know: the policy (tests/cpp/http), and what may not be stored (test_web_privacy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fronts import Serve, each_front, each_middleware, numbered, serving
from stillwarm import Cache, _core

FRESH = ("Cache-Control", "max-age=60")


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve
    assert _core.check_invariants(warm_cache)


@each_middleware
def test_web_http_fields_of_the_connection_are_not_stored(front: str, serve: Serve) -> None:
    mine = ("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("X-Stays", "2")
    server = serve(front, numbered(FRESH, *mine))
    server.ask()
    hit = server.ask()
    assert hit.cache == "HIT"
    assert [hit[name] for name in ("connection", "x-hop", "keep-alive", "x-stays")] == [None, None, None, "2"]


@each_middleware
def test_web_http_every_answer_from_the_store_has_its_age(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(FRESH))
    assert server.ask()["age"] == "0"
    warm_clock.move(7)
    assert server.ask()["age"] == "7"
    assert server.ask(method="HEAD")["age"] == "7"
    assert server.ask(headers={"If-None-Match": "*"})["age"] == "7"


@each_middleware
def test_web_http_a_304_has_the_fields_of_the_200_and_no_content(front: str, serve: Serve) -> None:
    fields = FRESH, ("ETag", '"a"'), ("Vary", "Accept"), ("Expires", "0"), ("Content-Location", "/x"), ("X-Other", "1")
    server = serve(front, numbered(*fields))
    server.ask()
    answer = server.ask(headers={"If-None-Match": '"a"'})
    assert (answer.status, answer.body, answer.cache) == (304, b"", "HIT")
    kept = [answer[name] for name in ("cache-control", "etag", "vary", "expires", "content-location")]
    assert kept == ["max-age=60", '"a"', "Accept", "0", "/x"]
    assert (answer["x-other"], answer["content-type"]) == (None, None)


@each_middleware
def test_web_http_a_206_has_the_fields_of_the_200(front: str, serve: Serve) -> None:
    fields = FRESH, ("ETag", '"a"'), ("Vary", "Accept"), ("Content-Location", "/x"), ("X-Other", "1")
    server = serve(front, lambda seen: numbered(*fields)(seen)._replace(body=b"0123456789"))
    server.ask()
    answer = server.ask(headers={"Range": "bytes=2-4"})
    assert (answer.status, answer.body) == (206, b"234")
    assert (answer["content-range"], answer["content-length"]) == ("bytes 2-4/10", "3")
    kept = [answer[name] for name in ("cache-control", "etag", "vary", "content-location", "x-other")]
    assert kept == ["max-age=60", '"a"', "Accept", "/x", "1"]


@each_front
def test_web_http_cache_status_says_where_an_answer_came_from(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(("Cache-Control", "max-age=60")), stale_while_revalidate=60)
    assert server.ask().cache_status == "stillwarm; fwd=uri-miss; stored; ttl=60"
    warm_clock.move(20)
    assert server.ask().cache_status == "stillwarm; hit; ttl=40"
    warm_clock.move(50)
    stale = server.ask()
    assert (stale.cache, stale.cache_status) == ("STALE", "stillwarm; hit; ttl=-10")
    server.settle()
    assert server.ask(method="POST").cache_status == "stillwarm; fwd=method"


@each_front
@pytest.mark.usefixtures("warm_clock")
def test_web_http_cache_status_says_that_a_load_was_shared(front: str, serve: Serve) -> None:
    server = serve(front, numbered(FRESH))
    said = sorted(answer.cache_status for answer in server.race({}, {}, {}))
    shared = "stillwarm; fwd=uri-miss; collapsed; ttl=60"
    assert said == [shared, shared, "stillwarm; fwd=uri-miss; stored; ttl=60"]
    assert server.loads == 1
