"""Web answers in the PostgreSQL tier: what one worker stored another serves, with its age, its variants and its marks.

Thread rule: one thread; two caches stand for two workers.
Refuses to know: how answers are packed (web/facts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

from stillwarm import Cache, _core
from stillwarm.flask import Stillwarm


class Worker:
    """An app with a cache of its own on the shared database."""

    def __init__(self, url: str) -> None:
        self.cache = Cache(url, namespace="web", jitter=0.0, timeout="5s")
        self.warm = Stillwarm(self.cache)
        self.calls = 0
        app = Flask(__name__)

        @app.get("/page")
        @self.warm.cache_response(ttl=60, tags=["pages"])
        def page() -> Any:
            self.calls += 1
            return {"page": "one"}

        @app.get("/words")
        @self.warm.cache_response(ttl=60, vary_on=["Accept-Language"])
        def words() -> Any:
            self.calls += 1
            return {"language": request.headers["Accept-Language"]}

        @app.get("/mine")
        @self.warm.cache_response(ttl=60, per_user=lambda: request.headers.get("X-User"))
        def mine() -> Any:
            self.calls += 1
            return {"user": request.headers.get("X-User")}

        self.client = app.test_client()

    def written(self) -> None:
        assert self.cache._tier is not None
        assert self.cache._tier.core.drain(5_000_000_000)


@pytest.fixture
def workers(warm_postgres: Any) -> Iterator[tuple[Worker, Worker]]:
    url = warm_postgres.new_database()
    with Cache(url, timeout="20s") as cache:
        cache.migrate()  # what is stored while the tables are made is not there for sure
    pair = Worker(url), Worker(url)
    yield pair
    for worker in pair:
        worker.cache.close()


def test_web_tier_what_one_worker_stored_another_serves(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    first = one.client.get("/page")
    one.written()
    second = two.client.get("/page")
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "HIT")
    assert second.data == first.data
    assert second.headers["ETag"] == first.headers["ETag"]
    assert int(second.headers["Age"]) >= 0
    assert (one.calls, two.calls) == (1, 0)
    assert two.client.get("/page", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_web_tier_variants_are_told_apart(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    for language in ("de", "fr"):
        one.client.get("/words", headers={"Accept-Language": language})
        one.written()
    for language in ("fr", "de"):
        answer = two.client.get("/words", headers={"Accept-Language": language})
        assert (answer.json, answer.headers["X-Cache"]) == ({"language": language}, "HIT")
    assert two.calls == 0


def test_web_tier_one_user_never_gets_anothers(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/mine", headers={"X-User": "ann"})
    one.written()
    assert two.client.get("/mine", headers={"X-User": "bob"}).json == {"user": "bob"}
    assert two.client.get("/mine", headers={"X-User": "ann"}).json == {"user": "ann"}
    assert two.calls == 1


def test_web_tier_an_invalidation_is_heard_by_the_other_worker(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/page")
    one.written()
    assert two.client.get("/page").headers["X-Cache"] == "HIT"
    one.cache.invalidate(tag="pages")
    assert two.cache.confirm()  # what the next poll does
    assert two.client.get("/page").headers["X-Cache"] == "MISS"
    assert two.calls == 1


def test_web_tier_the_age_counts_from_when_it_was_stored(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/page")
    one.written()
    one.cache.query("UPDATE stillwarm.entries SET fresh_until = fresh_until - interval '20 s'")
    answer = two.client.get("/page")
    assert answer.headers["X-Cache"] == "HIT"
    left = int(answer.headers["Cache-Status"].split("ttl=")[1].split(";")[0])
    assert 30 <= left <= 40
    assert (
        _core.stats(two.cache, 1)["remote_hits"]
        + sum(_core.stats(two.cache, scope)["remote_hits"] for scope in two.cache._scopes if scope != 1)
        >= 1
    )
