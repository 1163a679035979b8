"""What the voc demo shows: schema, metrics, log lines, the provider's webhook, its story.

Thread rule: one client.
Refuses to know: what the endpoints answer (`test_demo_voc`), and a database that is away but for the story's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from fronts import until
from stillwarm import Cache, ConfigError, Retry, transient
from stillwarm._servers import ServerMissing
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.voc.app import PREFIX, create_app
from stillwarm.demo.voc.service import Service
from stillwarm.demo.voc.site import Voc
from stillwarm.demo.voc.story import TIMED
from stillwarm.demo.voc.windows import Windows
from stillwarm.web.webhook import sign_webhook
from vocs import CURRENT, FIGURES, HEALTH, SECRET, STATUS, WEBHOOK, Site, alone, make_site, site

__all__ = ["alone", "make_site", "site"]
Make = Callable[..., Site]
LOGGER = "stillwarm.demo.voc"


def deliver(site: Site, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", site.server.server_port, timeout=30)
    try:
        connection.request("POST", WEBHOOK, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


# ---------------------------------------------------------------------------------------------- the provider's webhook


def test_voc_webhook_invalidates_in_every_worker(make_site: Make) -> None:
    one, other = make_site(), make_site()
    for each in (one, other):
        each.status()
    one.sql("INSERT INTO voc_periods (start_at, end_at, source) SELECT now() + '1 h', now() + '2 h', 'provider'")
    assert one.sources() == []
    body = json.dumps({"invalidate": [{"type": "voc_status"}, {"type": "voc_current"}]}).encode()
    headers = sign_webhook(SECRET, body)
    status, said = deliver(one, body, headers)
    assert (status, said["status"]) == (200, "success")
    assert one.sources() == ["provider"]
    until(lambda: other.sources() == ["provider"], "the other worker hears of it")
    assert deliver(one, body, headers)[0] == 409


def test_voc_webhook_that_is_not_signed_does_nothing(site: Site) -> None:
    site.status()
    body = b'{"invalidate": [{"type": "voc_status"}]}'
    signed = sign_webhook(SECRET, body)
    assert deliver(site, body, {})[0] == 403
    assert deliver(site, body.replace(b"status", b"current"), signed)[0] == 403
    assert deliver(site, body, sign_webhook(SECRET[:-4] + "AAA=", body))[0] == 403
    assert deliver(site, body, sign_webhook(SECRET, body, timestamp=1_000_000))[0] == 403
    assert site.status().label == "HIT"
    assert deliver(site, body, signed)[0] == 200
    assert site.status().label == "MISS"


def test_voc_webhook_names_a_type_that_is_none(site: Site) -> None:
    body = b'{"invalidate": [{"type": "nope"}]}'
    status, said = deliver(site, body, sign_webhook(SECRET, body))
    assert status == 400
    assert "voc_status" in said["message"]


# ---------------------------------------------------------------------------------- metrics, health, schema, log lines


def test_voc_metrics(alone: Site) -> None:
    for _ in range(4):
        alone.status()
    text = alone.client.get("/metrics").body
    lines = [line for line in text.splitlines() if 'namespace="voc_test"' in line and 'type="voc_status"' in line]
    hits = [line for line in lines if line.startswith("stillwarm_hits_total")]
    assert [float(line.rpartition(" ")[2]) for line in hits] == [3.0]


def test_voc_health(site: Site, alone: Site) -> None:
    site.status()
    assert site.client.get(HEALTH).body == {"status": "healthy", "database": "up", "cache_state": "HEALTHY"}
    assert alone.client.get(HEALTH).body["database"] == "none"


def test_voc_operators_page_wants_its_token(site: Site) -> None:
    assert site.client.get("/api/cache/stats").status == 401
    assert site.client.get("/api/cache/stats", "a-token-of-the-tests").status == 200


def test_voc_schema_is_complete(site: Site) -> None:
    document = site.client.get("/openapi.json").body
    paths = {PREFIX, STATUS, CURRENT, FIGURES, WEBHOOK, HEALTH, "/metrics"}
    assert paths <= set(document["paths"])
    for path in paths - {"/metrics", WEBHOOK}:
        for operation in document["paths"][path].values():
            assert operation["summary"], path
            for status, response in operation["responses"].items():
                assert response["description"], (path, status)
                assert response["content"]["application/json"]["schema"]["$ref"], (path, status)
    for name, schema in document["components"]["schemas"].items():
        if name in ("StatusBody", "CurrentBody", "SavedBody", "NewWindow", "WindowBody", "StatsBody", "HealthBody"):
            assert all(field.get("description") for field in schema["properties"].values()), name
            assert set(schema["required"]) == set(schema["properties"]), name
    for path in (STATUS, CURRENT):
        responses = document["paths"][path]["get"]["responses"]
        assert responses["200"]["headers"]["X-Cache"]["schema"]["enum"] == ["HIT", "STALE", "MISS"]
        assert "Retry-After" in responses["503"]["headers"]


def test_voc_log_lines(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        site.clock.move(0)
        site.status()
        site.clock.move(9)
        site.status()
        site.save(5)
        site.save(5)
    lines = [r.getMessage() for r in caplog.records if r.name == LOGGER]
    assert lines[:2] == ["voc_status miss: read in the database", "voc_status hit: 9.0 s old"]
    assert lines[2:4] == ["cleared: type voc_status", "cleared: type voc_current"]
    assert [line.partition(",")[0] for line in lines[4:]] == ["update: inserted", "update: unchanged"]


# --------------------------------------------------------------------------------------------------------------- story


@pytest.mark.servers
def test_voc_story_keeps_every_promise() -> None:
    with Voc(fast=True) as demo:
        steps = list(demo.story())
        assert any(demo.server.url in line for line in demo.invitation())
    broken = {(step.title, fact) for step in steps for fact, held in step.facts.items() if not held}
    assert {fact for _, fact in broken} <= TIMED, broken  # a busy machine may break those
    assert len(steps) == 8
    assert all(step.facts and step.seen and step.figures for step in steps)


def test_voc_story_on_a_database_that_is_not_its_own_stops_nothing(make_site: Make) -> None:
    with Voc(fast=True, url=make_site().url) as demo:
        steps = list(demo.story())
    broken = {(step.title, fact) for step in steps for fact, held in step.facts.items() if not held}
    assert {fact for _, fact in broken} <= TIMED, broken
    assert len(steps) == 6


def test_voc_story_notices_that_nothing_is_cached(make_site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_site().url
    monkeypatch.setenv("STILLWARM_DISABLED", "1")
    for name in ("_HITS", "_CALLS"):  # each costs its queries
        monkeypatch.setattr(f"stillwarm.demo.voc.story.{name}", 5)
    with Voc(fast=True, url=url) as demo:
        story = demo.story()
        _, again = next(story), next(story)
        story.close()
    assert not again.facts["every one is a hit and says so"]
    assert not again.facts["no query"]


def test_voc_without_a_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", "/nowhere")
    with pytest.raises(ServerMissing, match="install the Debian package postgresql"):
        Voc(fast=True)


def test_voc_wrong_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="url="):
        Voc(url="postgresql//nobody")


def test_asgi_server_tells_an_app_of_its_start_and_end() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for what in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{what}"
            told.append(what)
            await send({"type": f"lifespan.{what}.complete"})

    server = AsgiServer(app, lifespan=True)
    assert told == ["startup"]
    server.stop()
    assert told == ["startup", "shutdown"]


@pytest.mark.parametrize("how", ["says", "raises"])
def test_asgi_server_whose_app_cannot_start_is_an_error(how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if how == "raises":
            raise ValueError
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(RuntimeError, match="startup failed"):
        AsgiServer(app, lifespan=True)


@pytest.mark.parametrize("prefetch", [False, True])
async def test_voc_closes_its_connections_however_it_ends(prefetch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows("postgresql://nobody@127.0.0.1:1/none")
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    with Cache(namespace="voc_test") as cache:
        app = create_app(Service(windows, cache, Retry(on=transient, retries=0)), prefetch=prefetch)
        monkeypatch.setattr(windows, "close", close)
        with pytest.raises(asyncio.CancelledError):
            async with app.router.lifespan_context(app):
                raise asyncio.CancelledError
    assert closed == [True]
    await windows.engine.dispose()
