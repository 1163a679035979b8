"""The voc demo with a database that is stopped, killed, frozen, or not there yet: a known answer, or a clear error.

Thread rule: one client. Servers are hurt by the test, which waits for what follows from it.
Refuses to know: what the endpoints answer otherwise (`test_demo_voc`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from fronts import until
from stillwarm._servers import PostgresServer
from stillwarm.demo.voc.app import PREFIX
from stillwarm.demo.voc.site import Voc
from stillwarm.demo.voc.story import Story
from vocs import CURRENT, FIGURES, HEALTH, STATUS, Site, window

pytestmark = pytest.mark.servers
Make = Callable[..., Site]


@pytest.fixture
def make(private_postgres: PostgresServer) -> Iterator[Make]:
    url, sites = private_postgres.new_database(), list[Site]()

    def make(**options: object) -> Site:
        sites.append(Site(url, **options))  # type: ignore[arg-type]
        return sites[-1]

    yield make
    private_postgres.thaw()
    private_postgres.start()  # so that closing has somebody to tell
    for site in sites:
        site.close()


def health(site: Site) -> tuple[str, str]:
    answer = site.client.get(HEALTH)
    assert answer.status == 200
    return answer.body["status"], answer.body["database"]


def known(site: Site) -> list[str]:
    """A status that is cached, and expired by the clock of this worker."""
    site.save(5, "known")
    tier = site.cache._tier
    assert tier is not None
    until(lambda: tier.core.health()["linked"], "the cache hears of invalidations")

    def kept() -> bool:  # what the database refuses leaves memory
        written = tier.core.drain(30 * 10**9)
        return written and {site.status().label for _ in range(3)} == {"HIT"} and tier.core.drain(0)

    until(kept, "what it has is known to be right")
    assert site.sources() == ["known"]
    site.clock.move(180)
    return ["known"]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_voc_database_that_is_gone_gives_retries_then_stale_answers(
    make: Make, private_postgres: PostgresServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = make()
    before = known(site)
    getattr(private_postgres, how)()
    answer = site.status()
    assert (answer.status, answer.label, answer.body["stale"]) == (200, "STALE", True)
    assert answer.body["age_seconds"] >= 180
    assert [one["source"] for one in answer.body["upcoming"]] == before
    lines = [line.split(" in ")[0] for line in caplog.messages if line.startswith("retry ")]
    assert lines == ["retry 1/3", "retry 2/3", "retry 3/3"]
    for _ in range(20):
        assert site.status().label == "STALE"
    assert site.client.get(FIGURES).body["status"]["age_seconds"] >= 180
    assert health(site) == ("degraded", "down")


def test_voc_database_that_is_gone_refuses_writes_and_is_back_within_a_ttl(
    make: Make, private_postgres: PostgresServer
) -> None:
    site = make()
    known(site)
    private_postgres.kill()
    assert site.status().label == "STALE"
    refused = site.save(9, "refused")
    assert refused.status == 503
    assert "is not known to be saved" in refused.body["detail"]
    assert site.status().label == "STALE"
    assert site.client.get(CURRENT).status == 503  # was never read
    private_postgres.start()
    site.clock.move(60)
    until(lambda: health(site)[1] == "up", "the database is found again")
    assert site.sources() == ["known"]
    assert site.save(9, "saved").body["outcome"] == "inserted"
    until(lambda: site.sources() == ["known", "saved"], "it is read")
    assert site.rows() == [("known",), ("saved",)]


def test_voc_frozen_database_holds_nobody_up(make: Make, private_postgres: PostgresServer) -> None:
    """Nobody answers: who has a value gets it while the reading still waits, and who has none gets an error."""
    site = make(waits={"attempt": "200ms", "soft": "50ms", "hard": "30s"})
    known(site)
    private_postgres.freeze()
    for _ in range(3):
        assert site.status().label == "STALE"
    answer = site.client.get(CURRENT)
    assert (answer.status, answer.body["title"]) == (503, "Service Unavailable")
    assert site.save(9).status == 503
    private_postgres.thaw()
    site.clock.move(60)
    until(lambda: site.status().label in ("MISS", "HIT"), "it is read again")


def test_voc_starts_without_its_database(
    make: Make, private_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    private_postgres.stop()
    site = make(prefetch=True)
    until(lambda: "warm-up: " in caplog.text, "warming up failed and says so")
    assert site.status().status == 503
    assert site.client.post(PREFIX, window(5)).status == 503
    assert health(site) == ("degraded", "down")
    assert site.client.get(FIGURES).body["status"]["has_data"] is False
    private_postgres.start()
    until(lambda: site.status().status == 200, "the database is found")
    until(lambda: site.client.post(PREFIX, window(5)).status == 200, "and written to")
    until(lambda: site.sources() == ["almanac"], "and read")


def test_voc_is_warm_from_the_start(make: Make) -> None:
    site = make(prefetch=True)
    until(lambda: site.client.get(FIGURES).body["current"]["has_data"], "both were read")
    until(lambda: site.client.get(FIGURES).body["status"]["has_data"], "both were read")
    for path in (STATUS, CURRENT):  # the load that read it may be about to land, and is joined
        until(lambda path=path: site.client.get(path).label == "HIT", "it is stored")
    assert site.queries.count == 4, "nobody had to read it again"
    assert site.cache.state.value == "HEALTHY"


def test_voc_is_cold_without_warming(make: Make) -> None:
    site = make(prefetch=False)
    assert site.client.get(FIGURES).body["status"]["has_data"] is False
    assert site.status().label == "MISS"


def test_voc_story_waits_for_what_the_database_says_of_a_value() -> None:
    """Another process stores a newer version meanwhile, so that this one's is refused and leaves memory: who stops the
    database before that has no value to show."""
    with Voc(fast=True) as demo:
        story = Story(demo, lambda *_: None)
        tier = demo.cache._tier
        assert tier is not None
        until(lambda: story.client.get(STATUS).label == "HIT", "there is a value")
        assert tier.core.drain(30 * 10**9)
        with psycopg.connect(demo.url) as other, psycopg.connect(demo.url, autocommit=True) as looking:
            other.execute("UPDATE stillwarm.entries SET version = pg_current_xact_id() WHERE key = 'voc:status'")
            demo.cache.invalidate(type="voc_status")
            assert story.client.get(STATUS).status == 200
            until(lambda: looking.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone(), "its write waits")
            waiting = threading.Thread(target=story._in_memory)
            waiting.start()
            waiting.join(3)
            early = not waiting.is_alive()
            other.commit()
        waiting.join(30)
        assert not early, "what is in memory may be refused yet"
        assert not waiting.is_alive()
        assert demo.service.status.cache_contains()
        assert demo.cache.stats().tier["refused"] == 1
        story.client.close()
