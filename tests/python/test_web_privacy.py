"""Nobody gets what is somebody else's: one test for each way in which a cache has leaked, at each of the four fronts.

Thread rule: requests in flight at once are held by `Server.race`.
Refuses to know: what a cache gains (test_web_middleware, test_web_flask, test_web_fastapi).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fronts import Reply, Seen, Serve, each_front, numbered, serving
from stillwarm import Cache

ALICE = {"authorization": "Bearer alice"}
BOB = {"authorization": "Bearer bob"}


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


def who(*headers: tuple[str, str], status: int = 200) -> object:
    """An app whose answer depends on who asks, and says so only in `headers`."""

    def answered(seen: Seen) -> Reply:
        return Reply(status, headers, seen.headers.get("authorization", seen.headers.get("cookie", "nobody")).encode())

    return answered


# ------------------------------------------------------------------------------------- what the app says of its answer


@each_front
@pytest.mark.parametrize(
    "field",
    [
        ("Cache-Control", "no-store"),
        ("Cache-Control", "NO-STORE"),
        ("Cache-Control", "private"),
        ("Cache-Control", "Private"),
        ("Cache-Control", "max-age=60 , pRiVaTe"),
        ("Cache-Control", 'private="x-name"'),
        ("Cache-Control", "no-cache"),
        ("cache-CONTROL", "no-store, max-age=60"),
        ("Cache-Control", 'public, max-age=60, no-store="'),
    ],
    ids=lambda field: field[1],
)
def test_web_privacy_directives_hold_in_any_case(front: str, serve: Serve, field: tuple[str, str]) -> None:
    server = serve(front, numbered(field), ttl=60)
    assert [server.ask().body for _ in range(3)] == [b"1", b"2", b"3"]
    assert server.cache.stats().entries == 0


@each_front
def test_web_privacy_vary_star_is_never_stored(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("Vary", "*")), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]
    assert server.cache.stats().entries == 0


@each_front
@pytest.mark.parametrize(
    "fields", [["Accept, *"], ["Accept", "*"], [" * "]], ids=["in a list", "second field", "spaces"]
)
def test_web_privacy_vary_star_is_seen_anywhere(front: str, serve: Serve, fields: list[str]) -> None:
    server = serve(front, numbered(*(("Vary", value) for value in fields)), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]


@each_front
@pytest.mark.parametrize("vary", ["Accept ,  X-Team", "accept,x-team", "\tACCEPT\t, ,X-TEAM "])
def test_web_privacy_vary_with_white_space_tells_variants_apart(front: str, serve: Serve, vary: str) -> None:
    server = serve(front, numbered(("Vary", vary)), ttl=60)
    red, blue = {"accept": "*/*", "x-team": "red"}, {"accept": "*/*", "x-team": "blue"}
    assert [server.ask(headers=team).body for team in (red, blue, red, blue)] == [b"1", b"2", b"1", b"2"]


@each_front
def test_web_privacy_vary_in_two_fields_is_one_list(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("Vary", "Accept"), ("Vary", "X-Team")), ttl=60)
    assert [server.ask(headers={"x-team": team}).body for team in ("red", "blue", "red")] == [b"1", b"2", b"1"]


@each_front
def test_web_privacy_vary_cookie_after_white_space_keeps_cookies_out(front: str, serve: Serve) -> None:
    server = serve(front, who(("Vary", "Accept ,  Cookie")), ttl=60)
    bodies = [server.ask(headers=h).body for h in ({"cookie": "s=a"}, {"cookie": "s=b"}, {}, {"cookie": "s=a"})]
    assert bodies == [b"s=a", b"s=b", b"nobody", b"s=a"]


@each_front
def test_web_privacy_set_cookie_is_never_stored(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("Set-Cookie", "session=1"), ("Cache-Control", "public, max-age=60")), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]
    assert server.cache.stats().entries == 0


@each_front
@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 505, 511, 599])
def test_web_privacy_5xx_is_never_stored(front: str, serve: Serve, status: int) -> None:
    server = serve(front, numbered(("Cache-Control", "public, max-age=60"), status=status), ttl=60)
    answers = [server.ask() for _ in range(2)]
    assert [answer.body for answer in answers] == [b"1", b"2"]
    assert [answer.status for answer in answers] == [status, status]
    assert server.cache.stats().entries == 0


@each_front
@pytest.mark.parametrize("status", [400, 401, 403, 405, 407, 408, 409, 412, 418, 421, 422, 429, 451])
def test_web_privacy_4xx_is_never_stored(front: str, serve: Serve, status: int) -> None:
    server = serve(front, numbered(("Cache-Control", "public, max-age=60"), status=status), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]
    assert server.cache.stats().entries == 0


@each_front
@pytest.mark.parametrize("status", [404, 410])
def test_web_privacy_absence_needs_a_time_of_its_own(front: str, serve: Serve, status: int) -> None:
    server = serve(front, numbered(status=status), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]


@each_front
@pytest.mark.parametrize("status", [201, 202, 206, 302, 303, 307])
def test_web_privacy_other_status_is_never_stored(front: str, serve: Serve, status: int) -> None:
    server = serve(front, numbered(("Cache-Control", "max-age=60"), ("Location", "/x"), status=status), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]


@each_front
def test_web_privacy_part_of_a_body_is_never_stored(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("Content-Range", "bytes 0-0/10")), ttl=60)
    assert [server.ask().body for _ in range(2)] == [b"1", b"2"]


# ------------------------------------------------------------------------------------------------------- who asks


@each_front
def test_web_privacy_credentials_are_not_stored_without_leave(front: str, serve: Serve) -> None:
    server = serve(front, who(), ttl=60)  # an app that forgot Vary: Authorization
    assert [server.ask(headers=h).body for h in (ALICE, BOB, {}, ALICE)] == [
        b"Bearer alice",
        b"Bearer bob",
        b"nobody",
        b"Bearer alice",
    ]
    assert server.cache.stats().entries == 1  # nobody's


@each_front
def test_web_privacy_credentials_do_not_get_what_was_stored_without(front: str, serve: Serve) -> None:
    server = serve(front, who(("Cache-Control", "max-age=60")), ttl=60)
    assert [server.ask(headers=h).body for h in ({}, ALICE, {}, BOB)] == [
        b"nobody",
        b"Bearer alice",
        b"nobody",
        b"Bearer bob",
    ]
    assert server.ask(headers=ALICE).cache == "BYPASS"


@each_front
@pytest.mark.parametrize("leave", ["public", "s-maxage=60", "must-revalidate"])
def test_web_privacy_credentials_share_what_the_app_calls_public(front: str, serve: Serve, leave: str) -> None:
    server = serve(front, numbered(("Cache-Control", f"max-age=60, {leave}")), ttl=60)
    assert [server.ask(headers=h).body for h in (ALICE, BOB, {})] == [b"1", b"1", b"1"]


@each_front
def test_web_privacy_cookies_pass_by(front: str, serve: Serve) -> None:
    server = serve(front, who(("Cache-Control", "public, max-age=60")), ttl=60)  # an app that forgot Vary: Cookie
    headers: list[dict[str, str]] = [{}, {"cookie": "session=a"}, {"cookie": "session=b"}, {}]
    answers = [server.ask(headers=h) for h in headers]
    assert [answer.body for answer in answers] == [b"nobody", b"session=a", b"session=b", b"nobody"]
    assert [answer.cache for answer in answers] == ["MISS", "BYPASS", "BYPASS", "HIT"]


@each_front
def test_web_privacy_ignored_cookies_are_named_exactly(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60, ignore_cookies=["_ga", "utm_*"])
    assert server.ask(headers={"cookie": "_ga=1; utm_source=x"}).body == b"1"
    assert server.ask(headers={"cookie": "utm_medium=1;_ga=2"}).body == b"1"
    names = ["_gat=1", "_GA=1", "xutm_=1", "_ga=1; session=a", "utm=1", ";; session", "_ga=1;\tsession=a"]
    assert [server.ask(headers={"cookie": name}).body for name in names] == [b"%d" % n for n in range(2, 9)]


@each_front
def test_web_privacy_concurrent_users_do_not_share(front: str, serve: Serve) -> None:
    server = serve(front, who(), ttl=60)
    requests = [{"headers": {"authorization": f"Bearer {n}"}} for n in range(6)]
    assert [answer.body for answer in server.race(*requests)] == [f"Bearer {n}".encode() for n in range(6)]
    assert server.cache.stats().entries == 0


@each_front
def test_web_privacy_concurrent_cookies_do_not_share(front: str, serve: Serve) -> None:
    server = serve(front, who(), ttl=60)
    requests = [{"headers": {"cookie": f"s={n}"}} for n in range(6)]
    assert [answer.body for answer in server.race(*requests)] == [f"s={n}".encode() for n in range(6)]


@each_front
@pytest.mark.parametrize("leader", [ALICE, {}], ids=["with credentials", "without"])
def test_web_privacy_concurrent_with_and_without_credentials(front: str, serve: Serve, leader: dict[str, str]) -> None:
    server = serve(front, who(), ttl=60)
    others = [{}, ALICE, BOB, {}]
    bodies = [answer.body for answer in server.race({"headers": leader}, *({"headers": h} for h in others))]
    assert bodies == [h.get("authorization", "nobody").encode() for h in (leader, *others)]


@each_front
@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, [("Cache-Control", "private")]),
        (200, [("Cache-Control", "no-store")]),
        (200, [("Cache-Control", "no-cache")]),
        (200, [("Set-Cookie", "session=1")]),
        (200, [("Vary", "*")]),
        (302, [("Set-Cookie", "session=1"), ("Location", "/x")]),
        (404, [("Set-Cookie", "session=1")]),
        (500, [("Set-Cookie", "session=1")]),
        (500, [("Cache-Control", "private")]),
        (400, []),
        (401, []),
        (403, []),
        (409, []),
        (429, []),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "; ".join(v for _, v in value) or "plain",
)
def test_web_privacy_followers_do_not_get_what_is_the_leaders(
    front: str, serve: Serve, status: int, fields: list[tuple[str, str]]
) -> None:
    server = serve(front, numbered(*fields, status=status), ttl=60)
    bodies = [answer.body for answer in server.race(*[{}] * 5)]
    assert sorted(bodies) == [b"1", b"2", b"3", b"4", b"5"]
    assert server.cache.stats().entries == 0


@each_front
def test_web_privacy_followers_of_another_variant_get_their_own(front: str, serve: Serve) -> None:
    server = serve(
        front, lambda seen: Reply(200, [("Vary", "X-Team")], seen.headers.get("x-team", "-").encode()), ttl=60
    )
    teams = ["red", "blue", "red", "green", "blue"]
    assert [a.body.decode() for a in server.race(*({"headers": {"x-team": team}} for team in teams))] == teams


# ------------------------------------------------------------------------------------------------------- which request


@each_front
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_web_privacy_other_methods_never_get_the_body_of_a_get(front: str, serve: Serve, method: str) -> None:
    server = serve(front, lambda seen: Reply(200, [], f"{seen.method} {seen.number}".encode()), ttl=60)
    assert server.ask().body == b"GET 1"
    assert server.ask(method=method).body == f"{method} 2".encode()
    assert server.ask(method=method).body == f"{method} 3".encode()  # nor is theirs stored
    assert server.ask().body.startswith(b"GET")


@each_front
def test_web_privacy_a_get_with_content_passes_by(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60)
    assert [server.ask(body=b"who=alice").body, server.ask(body=b"who=bob").body, server.ask().body] == [
        b"1",
        b"2",
        b"3",
    ]


@each_front
def test_web_privacy_the_answer_to_head_is_not_that_to_get(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60)
    head = server.ask(method="HEAD")
    assert head.body in (b"", b"1")  # a server cuts it off
    assert server.ask().body == b"2"  # what HEAD brought was not stored
    stored = server.ask(method="HEAD")
    assert (stored.body, stored.cache, stored["content-length"]) == (b"", "HIT", "1")
    assert server.loads == 2


@each_front
def test_web_privacy_hosts_and_schemes_are_told_apart(front: str, serve: Serve) -> None:
    server = serve(front, lambda seen: Reply(200, [], f"{seen.host} {seen.number}".encode()), ttl=60)
    asked = [("a.test", "http"), ("b.test", "http"), ("a.test", "https"), ("a.test:8000", "http")]
    bodies = [server.ask(host=host, scheme=scheme).body.decode() for host, scheme in asked]
    assert bodies == [f"{host} {n}" for n, (host, _) in enumerate(asked, 1)]
    assert [server.ask(host=host, scheme=scheme).cache for host, scheme in asked] == ["HIT"] * 4


@each_front
def test_web_privacy_a_host_is_one_host_however_it_is_written(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60)
    assert [server.ask(host=h).body for h in ("App.TEST", "app.test", "app.test:80")] == [b"1", b"1", b"1"]
    assert [server.ask(host=h, scheme="https").body for h in ("app.test", "app.test:443", "app.test:80")] == [
        b"2",
        b"2",
        b"3",
    ]


@each_front
def test_web_privacy_queries_count_in_their_order(front: str, serve: Serve) -> None:
    server = serve(front, lambda seen: Reply(200, [], f"{seen.query} {seen.number}".encode()), ttl=60)
    queries = ["?a=1&b=2", "?b=2&a=1", "?a=1", "", "?a=1&a=2", "?a=2&a=1", "?a=1%26b=2"]
    bodies = [server.ask("/" + query).body.decode() for query in queries]
    assert bodies == [f"{query[1:]} {n}" for n, query in enumerate(queries, 1)]


@each_front
def test_web_privacy_keys_are_injective(front: str, serve: Serve, warm_cache: Cache) -> None:
    server = serve(front, numbered(), ttl=60)
    paths = [
        "/~a", "/%257Ea", "/a~b", "/a/b", "/a%252Fb", "/a%3Fb=1", "/a?b=1", "/a", "/A", "/a%20", "/a%2520",
        "/%C3%A9", "/%25C3%25A9", "/a?%C3", "/a?%c3", "/a??b=1", "/a?b=1?", "/a//b", "/a%23", "/a%00b", "/a+",
    ]  # fmt: skip
    asked = [(path, "app.test") for path in paths] + [("/a", "app.test/a"), ("/", "app.test/a"), ("/b", "app.test?a")]
    if front in ("flask", "wsgi"):
        asked = [(path, host) for path, host in asked if host == "app.test"]  # Werkzeug refuses such hosts
    bodies = [server.ask(path, host=host).body for path, host in asked]
    assert len(set(bodies)) == len(asked)
    assert warm_cache.stats().entries == len(asked)
    assert all(key.key.isascii() and key.key.isprintable() for key in warm_cache.top(100))


@each_front
def test_web_privacy_keys_do_not_tell_the_values_of_headers(
    front: str, serve: Serve, warm_cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(front, numbered(("Vary", "X-Api-Key, Accept"), ("Cache-Control", "public, max-age=60")), ttl=60)
    for secret in ("s3cret-one", "s3cret-two", "s3cret-one"):
        answer = server.ask(headers={"x-api-key": secret, "authorization": "Bearer s3cret-three"})
        assert "s3cret" not in str(answer)
    assert server.loads == 2
    shown = f"{warm_cache.top(100)} {warm_cache.stats()} {caplog.text} {warm_cache!r}"
    assert "s3cret" not in shown
    assert warm_cache.stats().entries == 2


# -------------------------------------------------------------------------------------------- what the client sees


@each_front
def test_web_privacy_keys_are_shown_only_for_the_debug_token(front: str, serve: Serve) -> None:
    token = "0123456789abcdef-debug"
    server = serve(front, numbered(), ttl=60, debug_token=token)
    for given in ({}, {"stillwarm-debug": ""}, {"stillwarm-debug": token[:-1]}, {"stillwarm-debug": token + "x"}):
        status = server.ask("/secret-path", headers=given).cache_status
        assert "key" not in status
        assert "secret-path" not in status
    shown = server.ask("/secret-path", headers={"stillwarm-debug": token}).cache_status
    assert 'key="cache:http:' in shown
    assert 'GET:http://app.test/secret-path"' in shown


@each_front
def test_web_privacy_reasons_are_shown_only_for_the_debug_token(front: str, serve: Serve) -> None:
    token = "0123456789abcdef-debug"
    server = serve(front, numbered(("Cache-Control", "no-store")), ttl=60, debug_token=token)
    assert "detail=no-store" in server.ask("/a", headers={"stillwarm-debug": token}).cache_status
    assert "detail" not in server.ask("/b").cache_status


@each_front
def test_web_privacy_without_a_debug_token_nothing_is_shown(front: str, serve: Serve) -> None:
    server = serve(front, numbered(), ttl=60)
    for given in ({"stillwarm-debug": ""}, {"stillwarm-debug": "None"}, {"cookie": "a=1", "stillwarm-debug": "x"}):
        assert "key" not in server.ask(headers=given).cache_status
        assert "detail" not in server.ask(headers=given).cache_status


@each_front
def test_web_privacy_an_x_cache_of_a_cache_further_in_stays(front: str, serve: Serve) -> None:
    server = serve(front, numbered(("X-Cache", "inner")), ttl=60)
    first = server.ask()
    assert first.all("x-cache") in (["MISS"], ["inner"])
    assert server.ask().all("x-cache") == ["HIT"]  # of what was stored, it is this cache that answers
