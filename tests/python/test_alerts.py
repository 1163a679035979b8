"""Alerts: each is raised once when its figure crosses its threshold, and may be raised again after it was back.

Thread rule: one thread but where a test says otherwise; time is moved by hand.
Refuses to know: HTTP.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, State, _core, hooks
from stillwarm.web import alerts as module
from stillwarm.web.alerts import Alert, alerts_of, watch

SECOND = 10**9


def later(seconds: float = 2) -> None:
    """From here on time stands still, `seconds` after now."""
    _core.clock_set(_core.clock_now() + int(seconds * SECOND))


@pytest.fixture
def cache() -> Cache:
    later(0)
    return Cache(ttl=60, namespace="shop")


def the(cache: Cache, name: str) -> Alert:
    return next(alert for alert in alerts_of(cache) if alert.name == name)


def ask(cache: Cache, hits: int = 0, misses: int = 0) -> None:
    cache.set("there", 1)
    for _ in range(hits):
        cache.get("there")
    for _ in range(misses):
        cache.get_or_set("fleeting", lambda: 1, ttl=60)
        cache.delete("fleeting")


def fail(cache: Cache, times: int) -> None:
    def load() -> None:
        raise OSError("down")

    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            cache.get_or_set("failing", load, ttl=60)


# ----------------------------------------------------------------------------------------------------- the six of them


def hit_rate_bad(cache: Cache, _: Any) -> None:
    ask(cache, hits=49, misses=51)


def hit_rate_good(cache: Cache, _: Any) -> None:
    later(301)
    alerts_of(cache)
    later()
    ask(cache, hits=50, misses=50)


def errors_bad(cache: Cache, _: Any) -> None:
    fail(cache, 11)


def errors_good(cache: Cache, _: Any) -> None:
    later(301)
    alerts_of(cache)
    later(301)


def down(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "state", State.DOWN)


def up(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "state", State.DEGRADED)


def entries_bad(cache: Cache, _: Any) -> None:
    for n in range(10_001):
        cache.set(str(n), n)
        cache.get(str(n))
        cache.get(str(n))


def entries_good(cache: Cache, _: Any) -> None:
    cache.delete("0")


def reuse_bad(cache: Cache, _: Any) -> None:
    for n in range(100):
        cache.set(str(n), n)
    for n in range(99):
        cache.get(str(n))
        cache.get(str(n))


def reuse_good(cache: Cache, _: Any) -> None:
    cache.get("99")
    cache.get("99")


def expired_bad(cache: Cache, _: Any) -> None:
    for n in range(100):
        cache.set(str(n), n, ttl=10 if n < 21 else 3600)
        cache.get(str(n))
        cache.get(str(n))
    later(30)


def expired_good(cache: Cache, _: Any) -> None:
    cache.set("0", 0, ttl=3600)  # a write drops what is over


Step = Callable[[Cache, Any], None]
CASES = [
    ("hit_rate", hit_rate_bad, hit_rate_good, 0.49, 0.5),
    ("errors", errors_bad, errors_good, 11, 10),
    ("tier_down", down, up, 1, 1),
    ("entries", entries_bad, entries_good, 10_001, 10_000),
    ("reuse", reuse_bad, reuse_good, 1.98, 2),
    ("expired", expired_bad, expired_good, 0.21, 0.2),
]


@pytest.mark.parametrize(("name", "bad", "good", "value", "threshold"), CASES, ids=[case[0] for case in CASES])
def test_alerts_each_is_raised_once_per_crossing_and_cleared(
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    bad: Step,
    good: Step,
    value: float,
    threshold: float,
) -> None:
    caplog.set_level(logging.INFO, "stillwarm")
    watch(cache)
    seen: list[hooks.Event] = []
    cache.subscribe(seen.append)

    def told() -> list[hooks.Event]:
        return [e for e in seen if isinstance(e, (hooks.AlertRaised, hooks.AlertCleared)) and e.key == name]

    def warnings() -> list[str]:
        return [
            r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and f"alert {name}" in r.getMessage()
        ]

    assert not the(cache, name).active
    for crossing in (1, 2):
        bad(cache, monkeypatch)
        for _ in range(3):
            later()
            alert = the(cache, name)
            assert (alert.active, alert.crossings) == (True, crossing)
        assert len(warnings()) == crossing
        if crossing == 1:
            assert told() == [hooks.AlertRaised("alert", name, pytest.approx(value), threshold)]
            assert "'shop'" in warnings()[0]
            good(cache, monkeypatch)
            for _ in range(2):
                later()
                assert not the(cache, name).active, "at the threshold is on its good side"
            assert isinstance(told()[-1], hooks.AlertCleared)
            assert len(told()) == 2
            assert f"alert {name} of cache 'shop' is over" in caplog.text
            # And again, from what is left of the first time.
            cache.clear()
            later(301)
            alerts_of(cache)
            later()
    assert [type(event) for event in told()] == [hooks.AlertRaised, hooks.AlertCleared, hooks.AlertRaised]


def test_alerts_say_what_they_mean(cache: Cache) -> None:
    watch(cache)
    ask(cache, hits=25, misses=75)
    later()
    assert the(cache, "hit_rate").message == "hit rate: 25 %; raised below 50 %"
    assert the(cache, "entries").message == "entries: 1; raised above 10,000"
    assert the(cache, "reuse").message == "hits of an entry on average: unknown; raised below 2"
    assert the(cache, "tier_down").message == "the cache is not down"


# ------------------------------------------------------------------------------------------------- when they are judged


def test_alerts_a_hit_rate_of_few_requests_is_none(cache: Cache) -> None:
    watch(cache)
    ask(cache, misses=99)
    later()
    assert the(cache, "hit_rate") == Alert("hit_rate", False, 0, None, 0.5)
    ask(cache, misses=1)
    later()
    assert the(cache, "hit_rate").active


def test_alerts_what_cannot_be_told_leaves_an_alert_as_it_is(cache: Cache) -> None:
    watch(cache)
    ask(cache, misses=100)
    later()
    assert the(cache, "hit_rate").active
    for _ in range(3):  # nobody asks for anything any more
        later(301)
        alert = the(cache, "hit_rate")
        assert (alert.active, alert.crossings) == (True, 1)


def test_alerts_count_from_when_they_were_set_up_and_only_in_their_window(cache: Cache) -> None:
    fail(cache, 50)
    watch(cache, {"window": 60})
    later()
    assert the(cache, "errors").value == 0
    fail(cache, 3)
    later()
    assert the(cache, "errors").value == 3
    later(30)
    fail(cache, 4)
    assert the(cache, "errors").value == 7
    later(40)
    assert the(cache, "errors").value == 4
    later(61)
    assert the(cache, "errors").value == 0


def test_alerts_are_looked_at_once_a_second_at_most(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = Cache.stats
    watch(cache)
    monkeypatch.setattr(Cache, "stats", lambda self: looks.append(1) or real(self))
    for _ in range(5):
        alerts_of(cache)
    assert len(looks) == 1
    later(0.9)
    alerts_of(cache)
    assert len(looks) == 1
    later(0.2)
    alerts_of(cache)
    assert len(looks) == 2


def test_alerts_entries_are_read_only_when_that_may_be_done(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    real = _core.snapshot
    monkeypatch.setattr(_core, "snapshot", lambda *a: reads.append(1) or real(*a))
    alerts = watch(cache, {"min_entries": 2})
    cache.set("a", 1)
    alerts.look(cache)
    assert not reads, "too few to tell anything"
    cache.set("b", 1)
    later()
    alerts.look(cache, read_entries=False)
    assert not reads
    alerts.look(cache)
    assert len(reads) == 1, "the other figures are recent, these are not"
    monkeypatch.setattr(module, "_MOST_READ", 1)
    later(3600)
    alerts.look(cache)
    assert len(reads) == 1
    quiet = Cache(ttl=60)
    watch(quiet, {"min_entries": 1, "reuse": None, "expired": None})
    quiet.set("a", 1)
    alerts_of(quiet)
    assert len(reads) == 1


def test_alerts_counts_that_were_reset_raise_nothing(cache: Cache) -> None:
    @cache.cached(ttl=60, name="f")
    def f(n: int) -> int:
        return n

    for n in range(200):
        f(n)
    watch(cache, {"min_requests": 10})
    for _ in range(20):
        f(0)
    f.cache_clear()
    later()
    assert the(cache, "hit_rate").value is None
    for _ in range(20):
        f(1)
    later()
    assert the(cache, "hit_rate").value == 19 / 20


def test_alerts_a_hook_may_ask_for_alerts_and_may_fail(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    watch(cache, {"errors": 0})
    seen = []

    def hook(event: hooks.Event) -> None:
        if isinstance(event, hooks.AlertRaised):
            seen.append(the(cache, "errors"))
            raise RuntimeError("pager")

    cache.subscribe(hook)
    fail(cache, 1)
    later()
    assert the(cache, "errors").active
    assert [(alert.active, alert.crossings) for alert in seen] == [(True, 1)]
    assert "a hook failed" in caplog.text


def test_alerts_of_many_threads_raise_one(cache: Cache) -> None:
    watch(cache, {"errors": 0})
    raised = []
    cache.subscribe(lambda event: raised.append(event) if isinstance(event, hooks.AlertRaised) else None)
    fail(cache, 1)
    later()
    barrier = threading.Barrier(8)

    def look() -> None:
        barrier.wait()
        for _ in range(50):
            alerts_of(cache)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(raised) == 1
    assert the(cache, "errors").crossings == 1


# --------------------------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    "thresholds",
    [
        {"hitrate": 0.5},
        {"hit_rate": 50},
        {"hit_rate": -0.1},
        {"hit_rate": "half"},
        {"hit_rate": float("nan")},
        {"hit_rate": True},
        {"errors": -1},
        {"errors": float("inf")},
        {"tier_down": 1},
        {"expired": 20},
        {"window": "1ms"},
        {"window": "2h"},
        {"window": "soon"},
        {"min_requests": 0},
        {"min_requests": 1.5},
        {"min_entries": True},
        ["hit_rate"],
        True,
    ],
    ids=repr,
)
def test_alerts_thresholds_that_mean_nothing_are_refused(cache: Cache, thresholds: Any) -> None:
    with pytest.raises(ConfigError, match=r"alerts.*accepted"):
        watch(cache, thresholds)


def test_alerts_can_be_switched_off_and_set_otherwise(cache: Cache) -> None:
    watch(cache, {"hit_rate": None, "reuse": False, "tier_down": False, "entries": 2})
    for n in range(3):
        cache.set(str(n), n)
    alerts = {alert.name: alert for alert in alerts_of(cache)}
    assert list(alerts) == ["errors", "entries", "expired"]
    assert (alerts["entries"].active, alerts["entries"].threshold) == (True, 2)


def test_alerts_belong_to_their_cache_and_go_with_it(cache: Cache) -> None:
    assert alerts_of(cache) == ()
    first = watch(cache, {"entries": 5})
    assert watch(cache) is first, "without thresholds nothing changes"
    assert watch(cache, {"entries": 6}) is not first
    other = Cache(ttl=1)
    assert alerts_of(other) == ()
    watch(other)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_alerts_are_known_to_the_logging_hook(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stillwarm")
    hooks.log_event(hooks.AlertRaised("alert", "errors", 11, 10))
    hooks.log_event(hooks.AlertCleared("alert", "errors", 0, 10))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "alert raised: errors"),
        ("DEBUG", "alert cleared: errors"),
    ]
