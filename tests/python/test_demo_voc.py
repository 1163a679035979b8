"""The voc demo over real HTTP on a real PostgreSQL: the reference system's tests by name, and what must hold besides.

Thread rule: one client; where requests have to meet, the queries wait for each other. Speed is told by counts.
Refuses to know: a database that is away (`test_demo_voc_outage`), what else is shown (`test_demo_voc_shown`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fronts import until
from stillwarm.demo.voc.app import PREFIX
from stillwarm.demo.voc.minutes import run_minutes
from stillwarm.errors import KeyTypeError
from stillwarm.testing import PostgresServer
from vocs import CURRENT, FIGURES, STATUS, Site, Turnstile, alone, failing, in_thread, make_site, site, window

__all__ = ["alone", "make_site", "site"]
Make = Callable[..., Site]

# ----------------------------------------------------------------------------------------- the reference system's tests


def test_voc_hit_and_miss(site: Site) -> None:
    first, again = site.status(), site.status()
    assert (first.status, first.label, first.body["cache_hit"]) == (200, "MISS", False)
    assert (again.status, again.label, again.body["cache_hit"]) == (200, "HIT", True)
    assert again.body["age_seconds"] >= first.body["age_seconds"]
    assert site.queries.count == 3
    assert [site.client.get(CURRENT).label for _ in range(2)] == ["MISS", "HIT"]
    assert site.queries.count == 4


@pytest.mark.parametrize(("path", "ttl"), [(STATUS, 120), (CURRENT, 60)])
def test_voc_ttl(alone: Site, path: str, ttl: int) -> None:
    alone.clock.move(0)
    assert alone.client.get(path).label == "MISS"
    alone.clock.move(ttl - 1)
    last = alone.client.get(path)
    assert (last.label, last.body["age_seconds"], last.body["stale"]) == ("HIT", ttl - 1, False)
    alone.clock.move(1)
    answer = alone.client.get(path)
    assert (answer.label, answer.body["age_seconds"]) == ("MISS", 0)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_voc_retry_succeeds_after_n_failures(alone: Site, failures: int, caplog: pytest.LogCaptureFixture) -> None:
    assert alone.client.get(STATUS).status == 200
    alone.cache.clear()
    failing(alone, failures)
    answer = alone.client.get(CURRENT)
    assert (answer.status, answer.label) == (200, "MISS")
    assert alone.delays == failures
    lines = [line for line in caplog.messages if line.startswith("retry ")]
    assert [line.split(" in ")[0] for line in lines] == [f"retry {n}/3" for n in range(1, failures + 1)]


def test_voc_expired_fallback_on_database_error(alone: Site, caplog: pytest.LogCaptureFixture) -> None:
    alone.clock.move(0)
    known = alone.client.get(CURRENT).body
    alone.clock.move(61)
    failing(alone, 4)
    answer = alone.client.get(CURRENT)
    assert (answer.status, answer.label) == (200, "STALE")
    assert answer.body == {**known, "cache_hit": True, "age_seconds": 61, "stale": True}
    until(lambda: alone.delays == 3, "it was tried three times more")
    assert "voc_current stale served: 61.0 s old" in caplog.text
    alone.clock.move(60)  # longer than any pause after a failed load
    assert alone.client.get(CURRENT).label == "MISS"


def test_voc_only_without_any_value_an_error(alone: Site) -> None:
    failing(alone, 1000)
    answer = alone.status()
    assert (answer.status, answer.body["title"]) == (503, "Service Unavailable")
    assert "the database does not answer" in answer.body["detail"]
    failing(alone, 0)
    until(lambda: alone.status().status == 200, "the error is not kept")


def test_voc_no_duplicates(site: Site) -> None:
    first, second, third = site.save(6), site.save(6), site.save(6, "observatory")
    assert [one.body["outcome"] for one in (first, second, third)] == ["inserted", "unchanged", "updated"]
    assert first.body["id"] == second.body["id"] == third.body["id"]
    assert site.rows() == [("observatory",)]
    elsewhere = {name: text.replace("+00:00", "Z") for name, text in window(6, "observatory").items()}
    assert site.client.post(PREFIX, elsewhere).body["outcome"] == "unchanged"


def test_voc_parallel_queries(site: Site) -> None:
    """All three stand before the database at the same time, each with a session: none waits for another."""
    site.status()
    site.cache.clear()
    gate = Turnstile(site)
    answer = in_thread(site)
    gate.wait(3)
    assert sorted(gate.there) == ["current", "next", "upcoming"]
    gate.open()
    assert answer().status == 200


# ------------------------------------------------------------------------------------------------------- what is found


def test_voc_status_has_current_next_and_upcoming(site: Site) -> None:
    for hours in (-1, 10, 30, 47, 60, -20):
        assert site.save(hours, f"at {hours}").status == 200
    body = site.status().body
    assert (body["current"]["source"], body["next"]["source"]) == ("at -1", "at 10")
    assert [one["source"] for one in body["upcoming"]] == ["at 10", "at 30", "at 47"]
    assert site.client.get(CURRENT).body["current"] == body["current"]
    assert set(body["current"]) == {"id", "start_at", "end_at", "source"}


@pytest.mark.parametrize(
    "change",
    [
        {"start_at": "2031-03-01T10:00"},
        {"end_at": window(2)["start_at"], "start_at": window(2)["end_at"]},
        {"end_at": window(1)["start_at"], "start_at": window(1)["start_at"]},
        {"source": ""},
        {"source": "\x00"},
        {"source": "x" * 101},
        {"source": "\ud83d"},
        {"start_at": "0001-01-01T00:00+14:00"},
        {"end_at": "9999-12-31T23:59:59-12:00"},
        {"start_at": None},
        {"more": 1},
    ],
    ids=range(11),
)
def test_voc_window_that_is_none_is_refused(site: Site, change: dict[str, Any]) -> None:
    answer = site.client.post(PREFIX, {**window(1), **change})
    assert answer.status == 422
    assert answer.body["detail"][0]["loc"][0] == "body"


# ----------------------------------------------------------------------------------------------------- many of everyone


@pytest.mark.parametrize("clients", [60, 600])
def test_voc_ten_times_the_clients_add_no_query(warm_postgres: PostgresServer, clients: int) -> None:
    load = run_minutes(warm_postgres.new_database(), clients)
    assert load == (clients, 0.5, 1.5)


def test_voc_clients_without_a_cache_cost_three_queries_each(
    warm_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWARM_DISABLED", "1")
    assert run_minutes(warm_postgres.new_database(), 60).queries == 180


def test_voc_100_identical_posts_leave_one_row_from_several_workers(make_site: Make) -> None:
    sites = [make_site(), make_site()]
    for one in sites:
        one.sources()  # what they will have to forget
    answers = []
    for one in sites:
        answers += one.client.get_at_once(PREFIX, 50, first="/api/v1/health", document=window(5, "both"))
    assert Counter(answer.status for answer in answers) == {200: 100}
    assert Counter(answer.body["outcome"] for answer in answers) == {"inserted": 1, "unchanged": 99}
    assert sites[0].rows() == [("both",)]
    assert sites[0].sources() == ["both"]
    until(lambda: sites[1].sources() == ["both"], "the other worker hears of it")


def test_voc_read_after_post_is_new(site: Site) -> None:
    for number in range(20):
        assert site.sources() == ([f"source {number - 1}"] if number else [])
        assert site.save(5, f"source {number}").status == 200
    assert site.sources() == ["source 19"]


def test_voc_read_begun_before_a_post_is_not_kept(site: Site) -> None:
    site.save(5, "old")
    gate = Turnstile(site)
    slow = in_thread(site)
    gate.wait(3)
    assert site.save(5, "new").body["outcome"] == "updated"
    gate.open()
    assert slow().status == 200
    assert site.sources() == ["new"]


def test_voc_post_that_changes_nothing_invalidates_nothing(site: Site) -> None:
    site.save(5)
    site.status()
    assert site.save(5).body["outcome"] == "unchanged"
    assert site.status().label == "HIT"


# ----------------------------------------------------------------------------------------------- loads outlive requests


def test_voc_request_cancelled_in_mid_load_breaks_nothing(site: Site) -> None:
    """The load has sessions of its own: the request that began it may go, and others get what it reads."""
    site.status()
    site.cache.clear()
    before = site.queries.count
    gate = Turnstile(site)

    async def begin() -> asyncio.Task[Any]:
        return asyncio.ensure_future(site.service.get_status())

    first = site.server.run(begin())
    gate.wait(3)
    others = [in_thread(site) for _ in range(3)]

    async def cancel() -> bool:
        first.cancel()
        await asyncio.wait({first})
        return first.cancelled()

    assert site.server.run(cancel())
    gate.open()
    assert [other().status for other in others] == [200] * 3
    assert site.queries.count == before + 3
    assert site.status().label == "HIT"


def test_voc_session_of_a_request_as_an_argument_is_refused(site: Site) -> None:
    """A session is no key; ignored, it would be closed under a load that outlives its request: open one inside."""

    @site.cache.cached(ttl=60, name="by_session")
    async def by_session(session: Any) -> int:
        return 1

    async def call() -> None:
        async with site.windows.sessions() as session:
            await by_session(session)

    with pytest.raises(KeyTypeError, match=r"AsyncSession.*ignore="):
        site.server.run(call())


def test_voc_one_session_runs_no_two_queries_at_once(site: Site) -> None:
    """The naive form: three queries in the request's session."""
    from sqlalchemy import text
    from sqlalchemy.exc import InvalidRequestError

    from stillwarm import agather

    async def call() -> None:
        async with site.windows.sessions() as session:
            await agather(*(session.execute(text("SELECT pg_sleep(0.05)")) for _ in range(3)))

    with pytest.raises(InvalidRequestError, match=r"another operation|concurrent|already in progress"):
        site.server.run(call())


def test_voc_cache_stats(alone: Site) -> None:
    alone.clock.move(0)
    nothing = {"has_data": False, "age_seconds": None}
    assert alone.client.get(FIGURES).body == {"status": {**nothing, "ttl": 120}, "current": {**nothing, "ttl": 60}}
    alone.status()
    alone.clock.move(7)
    stats = alone.client.get(FIGURES).body
    assert stats["status"] == {"has_data": True, "age_seconds": 7, "ttl": 120}
    assert stats["current"] == {**nothing, "ttl": 60}
