"""ResponseCache for WSGI and ASGI does what the app's own headers and the request's say (RFC 9111, 5861, 9110).

Thread rule: one thread; time is moved.
Refuses to know: what may not be stored (test_web_privacy), raw WSGI and ASGI apps (test_web_protocol).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fronts import Answer, Reply, Seen, Serve, each_middleware, numbered, serving
from stillwarm import Cache
from stillwarm.web.facts import etag_of

LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


def control(value: str, *more: tuple[str, str]) -> Any:
    return numbered(("Cache-Control", value), *more)


# ------------------------------------------------------------------------------------------------ how long it is fresh


@each_middleware
@pytest.mark.parametrize(
    ("field", "value", "seconds"),
    [
        ("Cache-Control", "max-age=100", 100),
        ("Cache-Control", "max-age=100, s-maxage=200", 200),
        ("Cache-Control", "s-maxage=50, max-age=100", 50),
        ("Cache-Control", "public, max-age=100, immutable", 100),
        ("Cache-Control", 'max-age="100"', 100),
        ("Cache-Control", "max-age=100, max-age=50", 50),
    ],
)
def test_web_middleware_an_answer_is_fresh_for_as_long_as_it_says(
    front: str, serve: Serve, warm_clock: Any, field: str, value: str, seconds: int
) -> None:
    server = serve(front, numbered((field, value)))
    server.ask()
    warm_clock.move(seconds - 1)
    answer = server.ask()
    assert (answer.body, answer.cache, answer["age"]) == (b"1", "HIT", str(seconds - 1))
    assert answer.cache_status == "stillwarm; hit; ttl=1"
    warm_clock.move(1)
    assert server.ask().body == b"2"


@each_middleware
def test_web_middleware_expires_counts_from_date(front: str, serve: Serve, warm_clock: Any) -> None:
    import time
    from email.utils import formatdate

    now = time.time()
    fields = (("Date", formatdate(now, usegmt=True)), ("Expires", formatdate(now + 100, usegmt=True)))
    server = serve(front, numbered(*fields))
    server.ask()
    warm_clock.move(90)
    assert server.ask().cache == "HIT"
    warm_clock.move(11)
    assert server.ask().body == b"2"


@each_middleware
@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("Cache-Control", "max-age=0")],
        [("Cache-Control", "max-age=never")],
        [("Cache-Control", "max-age=-1")],
        [("Cache-Control", "public")],
        [("Expires", LONG_AGO)],
        [("Expires", "0")],
        [("Expires", "tomorrow")],
        [("Cache-Control", "max-age=60"), ("Age", "60")],
        [("Last-Modified", LONG_AGO)],
        [("Cache-Control", "immutable")],
    ],
    ids=str,
)
def test_web_middleware_without_a_time_to_live_nothing_is_stored(
    front: str, serve: Serve, fields: list[tuple[str, str]]
) -> None:
    server = serve(front, numbered(*fields))
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]
    assert server.cache.stats().entries == 0


@each_middleware
def test_web_middleware_ttl_is_for_answers_that_say_nothing(front: str, serve: Serve, warm_clock: Any) -> None:
    replies = {"/said": [("Cache-Control", "max-age=100")], "/silent": []}
    server = serve(front, lambda seen: Reply(200, replies[seen.path], b"%d" % seen.number), ttl=10)
    server.ask("/said"), server.ask("/silent")
    warm_clock.move(11)
    assert server.ask("/said").cache == "HIT"
    assert server.ask("/silent").body == b"3"


@each_middleware
def test_web_middleware_heuristic_freshness_is_off_until_asked_for(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(("Last-Modified", LONG_AGO)), heuristic=True)
    server.ask()
    warm_clock.move("23h")
    assert server.ask().cache == "HIT"
    warm_clock.move("2h")
    assert server.ask().body == b"2"


@each_middleware
def test_web_middleware_age_of_a_cache_further_in_counts(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, control("max-age=100", ("Age", "40")))
    server.ask()
    warm_clock.move(50)
    assert server.ask()["age"] == "90"
    warm_clock.move(11)
    assert server.ask().body == b"2"


@each_middleware
def test_web_middleware_absence_is_stored_for_its_own_time(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(status=404), ttl=60, absent_ttl=5)
    server.ask()
    answer = server.ask()
    assert (answer.status, answer.body, answer.cache) == (404, b"1", "HIT")
    warm_clock.move(6)
    assert server.ask().body == b"2"


# --------------------------------------------------------------------------------------------------------- stale times


@each_middleware
def test_web_middleware_stale_while_revalidate(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, control("max-age=10, stale-while-revalidate=30"))
    server.ask()
    warm_clock.move(15)
    answer = server.ask()
    assert (answer.body, answer.cache, answer["age"]) == (b"1", "STALE", "15")
    assert answer.cache_status == "stillwarm; hit; ttl=-5"
    server.settle()
    assert server.ask().body == b"2"
    warm_clock.move(41)
    assert server.ask().body == b"3"


def then(status: int | None, *fields: tuple[str, str]) -> Any:
    """Fine at first, then this status, or None for an exception."""

    def answered(seen: Seen) -> Reply:
        if seen.number == 1:
            return Reply(200, fields, b"good")
        if status is None:
            raise RuntimeError("broken")
        return Reply(status, (), b"broken")

    return answered


@each_middleware
@pytest.mark.parametrize("status", [500, 502, 503, 504, None])
def test_web_middleware_stale_if_error(front: str, serve: Serve, warm_clock: Any, status: int | None) -> None:
    server = serve(front, then(status, ("Cache-Control", "max-age=10, stale-if-error=60")))
    server.ask()
    warm_clock.move(15)
    answer = server.ask()
    assert (answer.status, answer.body, answer.cache) == (200, b"good", "STALE")
    warm_clock.move(60)
    assert server.ask().status == (status or 500)


@each_middleware
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 501])
def test_web_middleware_no_stale_answer_stands_in_for_other_errors(
    front: str, serve: Serve, warm_clock: Any, status: int
) -> None:
    server = serve(front, then(status, ("Cache-Control", "max-age=10, stale-if-error=60")))
    server.ask()
    warm_clock.move(15)
    assert server.ask().status == status


@each_middleware
@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=10", "stale-if-error=0"])
def test_web_middleware_what_forbids_stale_answers(front: str, serve: Serve, warm_clock: Any, directive: str) -> None:
    server = serve(front, then(503, ("Cache-Control", f"max-age=10, {directive}")))
    server.ask()
    warm_clock.move(11)
    assert server.ask().status == 503


# ----------------------------------------------------------------------------------------- validators and conditions


@each_middleware
def test_web_middleware_an_etag_is_made_and_equal_in_every_process(front: str, serve: Serve) -> None:
    server = serve(front, control("max-age=60"))
    server.ask()
    etag = server.ask()["etag"]
    code = "from stillwarm.web.facts import etag_of; print(etag_of(b'1'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert etag == other == etag_of(b"1")


@each_middleware
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("if-none-match", '"v1"', 304),
        ("if-none-match", 'W/"v1"', 304),
        ("if-none-match", '"v0", "v1"', 304),
        ("if-none-match", "*", 304),
        ("if-none-match", '"v2"', 200),
        ("if-modified-since", LONG_AGO, 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("if-modified-since", "yesterday", 200),
    ],
)
def test_web_middleware_the_client_is_told_that_nothing_changed(
    front: str, serve: Serve, name: str, value: str, status: int
) -> None:
    fields = (("ETag", '"v1"'), ("Last-Modified", LONG_AGO), ("Content-Language", "en"), ("Vary", "Accept"))
    server = serve(front, control("max-age=60", *fields))
    first = server.ask(headers={name: value})  # a miss is answered by what is stored, too
    for answer in (first, server.ask(headers={name: value})):
        assert answer.status == status
        assert answer["etag"] == '"v1"'
        assert answer["cache-control"] == "max-age=60"
        assert answer["vary"] == "Accept"
        if status == 304:
            assert answer.body == b""
            assert answer["content-length"] is None
    assert server.loads == 1
    assert server.seen[0].headers.get(name) is None  # the app answered in full


@each_middleware
def test_web_middleware_if_none_match_goes_before_if_modified_since(front: str, serve: Serve) -> None:
    server = serve(front, control("max-age=60", ("ETag", '"v1"'), ("Last-Modified", LONG_AGO)))
    server.ask()
    assert server.ask(headers={"if-none-match": '"v2"', "if-modified-since": LONG_AGO}).status == 200


def revalidated(seen: Seen) -> Reply:
    """Its ETag is v1, and it knows conditions."""
    fields = [("ETag", '"v1"'), ("Cache-Control", "max-age=10, stale-if-error=0"), ("X-Number", str(seen.number))]
    if seen.headers.get("if-none-match") == '"v1"':
        return Reply(304, fields, b"")
    return Reply(200, [*fields, ("X-First", str(seen.number))], b"body")


@each_middleware
def test_web_middleware_what_is_kept_is_revalidated_with_the_app(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, revalidated, keep="5m")
    server.ask()
    warm_clock.move(60)
    answer = server.ask()
    assert server.seen[1].headers["if-none-match"] == '"v1"'
    assert (answer.status, answer.body, answer["age"]) == (200, b"body", "0")
    assert (answer["x-number"], answer["x-first"]) == ("2", "1")  # the fields of the 304 replace the stored ones
    assert answer["content-length"] == "4"
    again = server.ask()
    assert (again.cache, again.body, again["x-number"]) == ("HIT", b"body", "2")
    warm_clock.move(400)
    server.ask()
    assert "if-none-match" not in server.seen[2].headers  # too old to be kept


@each_middleware
def test_web_middleware_revalidation_is_not_the_clients_condition(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, revalidated, keep="5m")
    server.ask()
    warm_clock.move(60)
    answer = server.ask(headers={"if-none-match": '"v0"'})
    assert server.seen[1].headers["if-none-match"] == '"v1"'
    assert (answer.status, answer.body) == (200, b"body")
    warm_clock.move(60)
    assert server.ask(headers={"if-none-match": '"v1"'}).status == 304


@each_middleware
def test_web_middleware_a_changed_answer_replaces_what_was_kept(front: str, serve: Serve, warm_clock: Any) -> None:
    fields = ("Cache-Control", "max-age=10, stale-if-error=0")
    server = serve(
        front, lambda seen: Reply(200, [("ETag", f'"v{seen.number}"'), fields], b"%d" % seen.number), keep="5m"
    )
    server.ask()
    warm_clock.move(60)
    assert (server.ask().body, server.ask()["etag"]) == (b"2", '"v2"')


# ------------------------------------------------------------------------------------------- what the request says


@each_middleware
@pytest.mark.parametrize(
    ("directives", "body", "stored_after"),
    [
        ({"cache-control": "no-cache"}, b"2", b"2"),
        ({"cache-control": "No-Cache"}, b"2", b"2"),
        ({"pragma": "no-cache"}, b"2", b"2"),
        ({"cache-control": "max-age=0"}, b"2", b"2"),
        ({"cache-control": "no-store"}, b"2", b"1"),
        ({"cache-control": "max-age=5"}, b"2", b"2"),
        ({"cache-control": "max-age=20"}, b"1", b"1"),
        ({"cache-control": "min-fresh=90"}, b"2", b"2"),
        ({"cache-control": "min-fresh=80"}, b"1", b"1"),
        ({"cache-control": "max-stale"}, b"1", b"1"),
        ({"cache-control": "max-age=20", "pragma": "no-cache"}, b"1", b"1"),
    ],
    ids=str,
)
def test_web_middleware_request_directives(
    front: str, serve: Serve, warm_clock: Any, directives: dict[str, str], body: bytes, stored_after: bytes
) -> None:
    server = serve(front, control("max-age=100"))
    server.ask()
    warm_clock.move(15)
    assert server.ask(headers=directives).body == body
    assert server.ask().body == stored_after


@each_middleware
def test_web_middleware_only_if_cached(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, control("max-age=10"))
    only = {"cache-control": "only-if-cached"}
    assert server.ask(headers=only).status == 504
    assert server.loads == 0
    server.ask()
    answer = server.ask(headers=only)
    assert (answer.status, answer.body, answer.cache) == (200, b"1", "HIT")
    warm_clock.move(60)
    assert server.ask(headers=only).status == 504
    assert server.loads == 1


def shown(answer: Answer) -> tuple[int, bytes, str | None]:
    return answer.status, answer.body, answer["content-range"]


@each_middleware
def test_web_middleware_ranges_of_what_is_stored(front: str, serve: Serve) -> None:
    server = serve(front, lambda seen: Reply(200, [("Cache-Control", "max-age=60"), ("ETag", '"v1"')], b"0123456789"))
    server.ask()

    def part(value: str, **more: str) -> tuple[int, bytes, str | None]:
        return shown(server.ask(headers={"range": value, **{k.replace("_", "-"): v for k, v in more.items()}}))

    assert part("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert part("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert part("bytes=-2") == (206, b"89", "bytes 8-9/10")
    assert part("bytes=0-99") == (206, b"0123456789", "bytes 0-9/10")
    assert part("bytes=10-") == (416, b"", "bytes */10")
    assert part("bytes=2-4", if_range='"v1"') == (206, b"234", "bytes 2-4/10")
    assert part("bytes=2-4", if_range='"v0"')[0] == 200
    assert part("bytes=2-4", if_range='W/"v1"')[0] == 200
    assert part("bytes=2-4", if_none_match='"v1"')[0] == 304
    for ignored in ("lines=1-2", "bytes=4-2", "bytes=0-1,3-4", "bytes=a-b"):
        assert part(ignored)[:2] == (200, b"0123456789")
    assert server.ask(method="HEAD", headers={"range": "bytes=2-4"}).status == 200
    assert server.loads == 1


@each_middleware
def test_web_middleware_a_range_of_what_is_not_stored_is_the_apps(front: str, serve: Serve) -> None:
    def ranged(seen: Seen) -> Reply:
        if "range" in seen.headers:
            return Reply(206, [("Content-Range", "bytes 0-0/2"), ("Cache-Control", "max-age=60")], b"0")
        return Reply(200, [("Cache-Control", "max-age=60")], b"01")

    server = serve(front, ranged)
    assert [shown(server.ask(headers={"range": "bytes=0-0"})) for _ in range(2)] == [(206, b"0", "bytes 0-0/2")] * 2
    assert server.ask().body == b"01"
    assert server.loads == 3
