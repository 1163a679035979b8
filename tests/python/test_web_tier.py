"""Web answers in a remote tier: what one worker stored another serves, with its age, its variants and its marks.

Thread rule: one thread; two caches stand for two workers.
Refuses to know: how answers are packed (web/facts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

from stillwarm import _core
from stillwarm.flask import Stillwarm
from tiers import Ground


class Worker:
    """An app with a cache of its own on the shared ground."""

    def __init__(self, ground: Ground) -> None:
        self.cache = ground.cache()
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


@pytest.fixture(params=["postgres", "redis"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "redis":
        url = request.getfixturevalue("warm_redis").new_database()
    else:
        url = request.getfixturevalue("shared_database")
    ground = Ground(url)
    try:
        yield ground
    finally:
        ground.close()


@pytest.fixture
def workers(ground: Ground) -> tuple[Worker, Worker]:
    return Worker(ground), Worker(ground)


def test_web_tier_what_one_worker_stored_another_serves(ground: Ground, workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    first = one.client.get("/page")
    ground.written()
    second = two.client.get("/page")
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "HIT")
    assert second.data == first.data
    assert second.headers["ETag"] == first.headers["ETag"]
    assert int(second.headers["Age"]) >= 0
    assert (one.calls, two.calls) == (1, 0)
    assert two.client.get("/page", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_web_tier_variants_are_told_apart(ground: Ground, workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    for language in ("de", "fr"):
        one.client.get("/words", headers={"Accept-Language": language})
        ground.written()
    for language in ("fr", "de"):
        answer = two.client.get("/words", headers={"Accept-Language": language})
        assert (answer.json, answer.headers["X-Cache"]) == ({"language": language}, "HIT")
    assert two.calls == 0


def test_web_tier_one_user_never_gets_anothers(ground: Ground, workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/mine", headers={"X-User": "ann"})
    ground.written()
    assert two.client.get("/mine", headers={"X-User": "bob"}).json == {"user": "bob"}
    assert two.client.get("/mine", headers={"X-User": "ann"}).json == {"user": "ann"}
    assert two.calls == 1


def test_web_tier_an_invalidation_is_heard_by_the_other_worker(ground: Ground, workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/page")
    ground.written()
    assert two.client.get("/page").headers["X-Cache"] == "HIT"
    one.cache.invalidate(tag="pages")
    assert two.cache.confirm()  # what the next poll does
    assert two.client.get("/page").headers["X-Cache"] == "MISS"
    assert two.calls == 1


def test_web_tier_the_age_counts_from_when_it_was_stored(ground: Ground, workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    one.client.get("/page")
    ground.written()
    ground.pass_time(20)
    answer = two.client.get("/page")
    assert answer.headers["X-Cache"] == "HIT"
    left = int(answer.headers["Cache-Status"].split("ttl=")[1].split(";")[0])
    assert 30 <= left <= 40
    assert (
        _core.stats(two.cache, 1)["remote_hits"]
        + sum(_core.stats(two.cache, scope)["remote_hits"] for scope in two.cache._scopes if scope != 1)
        >= 1
    )
