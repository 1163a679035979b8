"""What a hit costs: decorated, in a coroutine, and by `get`.

Thread rule: one thread. Refuses to know: how the others are configured (rivals) and how results look (report).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from python.measure import (
    Plan,
    Samples,
    Section,
    async_loop,
    attempt,
    compared,
    interleaved,
    loop,
    new_event_loop,
    versus,
)
from rivals import OURS, Rivals

TTL = 300
ENTRIES = 10_000
KEY = "product:B000123"


def one(key: str) -> str:
    return "value"


def two(key: str, other: str) -> str:
    return "value"


async def empty_coroutine(key: str) -> str:
    return "value"


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    yield decorated(plan, rivals, "decorated hit, one str argument", one, "f(a)", 0.8)
    yield decorated(plan, rivals, "decorated hit, two arguments", two, "f(a, b)", 1.0)
    yield decorated(plan, rivals, "decorated hit, one positional, one keyword", two, "f(a, other=b)", 1.0)
    yield decorated(plan, rivals, "decorated hit, keyword argument", one, "f(key=a)", 1.0)
    yield many_keys(plan, rivals)
    yield coroutine(plan, rivals)
    yield get(plan, rivals)


def decorated(plan: Plan, rivals: Rivals, title: str, function: Any, call: str, goal: float) -> Section:
    section = Section(title, "ns")
    names = {"a": KEY} if function is one else {"a": KEY, "b": "domain"}
    candidates = {"empty function": loop(call, plan.slice, f=function, **names)}
    for name, adapter in rivals.with_("decorated").items():
        f = adapter.decorated(function, ENTRIES, TTL)
        candidate = attempt(section, name, lambda f=f: loop(call, plan.slice, f=f, **names))
        if candidate is not None:
            candidates[name] = candidate
    samples = interleaved(candidates, plan.rounds, loop("pass", plan.slice))
    compared(section, samples, OURS)
    versus(section, title, samples, OURS, "lru_cache", goal)
    best_with_ttl(section, title, samples, rivals, None)
    return section


def many_keys(plan: Plan, rivals: Rivals) -> Section:
    """One key again and again stays in the processor's caches; a service has more of them."""
    title = f"decorated hit, {ENTRIES // 2:,} keys in turn"
    section = Section(title, "ns")
    keys = [f"product:{number}" for number in range(ENTRIES // 2)]
    candidates = {}
    for name, adapter in rivals.with_("decorated").items():
        f = adapter.decorated(one, ENTRIES, TTL)
        for key in keys:
            f(key)
        candidates[name] = per_key(loop("for k in keys: f(k)", plan.slice, f=f, keys=keys), len(keys))
    empty = per_key(loop("for k in keys: pass", plan.slice, keys=keys), len(keys))
    samples = interleaved(candidates, plan.rounds, empty)
    compared(section, samples, OURS)
    versus(section, title, samples, OURS, "lru_cache", None)
    return section


def per_key(candidate: Any, count: int) -> Any:
    return lambda: candidate() / count


def coroutine(plan: Plan, rivals: Rivals) -> Section:
    title, anchor = "async decorated hit", "empty coroutine"
    section = Section(title, "ns")
    events, run = new_event_loop()
    candidates = {anchor: async_loop(run, "await f(a)", plan.slice, f=empty_coroutine, a=KEY)}
    for name, adapter in rivals.with_("async_decorated").items():
        f = adapter.async_decorated(empty_coroutine, ENTRIES, TTL)
        candidate = attempt(section, name, lambda f=f: async_loop(run, "await f(a)", plan.slice, f=f, a=KEY))
        if candidate is not None:
            candidates[name] = candidate
    samples = interleaved(candidates, plan.rounds, async_loop(run, "pass", plan.slice))
    compared(section, samples, OURS)
    versus(section, title, samples, OURS, anchor, 0.7)
    best_with_ttl(section, title, samples, rivals, None)
    events.run_until_complete(events.shutdown_asyncgens())
    return section


def get(plan: Plan, rivals: Rivals) -> Section:
    title, anchor = "cache.get(key)", "dict.get"
    section = Section(title, "ns")
    candidates = {anchor: loop("c.get(k)", plan.slice, c={KEY: "value"}, k=KEY)}
    for name, adapter in rivals.with_("make_store").items():
        store = adapter.make_store(ENTRIES, TTL)
        adapter.put(store, KEY, "value")
        candidates[name] = loop("c.get(k)", plan.slice, c=store, k=KEY)
    samples = interleaved(candidates, plan.rounds, loop("pass", plan.slice))
    compared(section, samples, OURS)
    versus(section, title, samples, OURS, anchor, 1.5)
    best_with_ttl(section, title, samples, rivals, 1 / 3)
    return section


def best_with_ttl(section: Section, title: str, samples: Samples, rivals: Rivals, goal: float | None) -> None:
    """A row against the fastest of the libraries that have a ttl too."""
    others = [a.NAME for a in rivals.adapters if a.TTL and a.NAME != OURS and a.NAME in samples.values]
    if others:
        versus(section, f"{title}, best rival with a ttl", samples, OURS, min(others, key=samples.median), goal)
