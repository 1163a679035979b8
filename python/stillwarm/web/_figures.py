"""The figures of a cache as the management endpoints show them.

Thread rule: any thread. Reads counters only, never keys: it may be asked as often as anyone likes.
Refuses to know: HTTP, and who asks.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._stats import Counters

_PASSWORD: Final = re.compile(r"(//[^/\s:@]*:)[^/\s@]*@")


def cache_stats(cache: Cache) -> dict[str, Any]:
    """What `/stats` calls cache_stats.

    hits: answered without waiting, the stale ones (`stale_hits`) included, so that hits + misses = total_requests.
    remote_hits: hits that came from the remote tier; in hits, too.
    errors: failed loads and failures of the remote tier. hit_rate: percent, two decimals.
    seconds_saved: hits times the mean time of a load, by type: what the callers would have waited.
    """
    stats = cache.stats()
    types = {name: _counts(counters) for name, counters in stats.types.items()}
    everything = _counts(stats)
    everything["seconds_saved"] = round(sum(counts["seconds_saved"] for counts in types.values()), 6)
    return {
        **everything,
        "is_available": stats.state.value != "DOWN",
        "state": stats.state.value,
        "namespace": cache.namespace,
        "tier": None if cache._tier is None else cache._tier.name,
        "max_bytes": stats.max_bytes,
        "max_entries": stats.max_entries,
        "flights": stats.flights,
        "last_errors": [
            {"type": name, "error": hidden(error)} for name, error in reversed(list(cache._last_errors.items()))
        ],
        "http": _http(cache),
        "types": types,
    }


def hidden(text: str | None) -> str | None:
    """An error's text without the passwords of the URLs in it: drivers like to quote theirs."""
    return None if text is None else _PASSWORD.sub(r"\1***@", text)


def _counts(counters: Counters) -> dict[str, Any]:
    served = counters.hits + counters.stale_hits
    mean = counters.load_seconds / counters.loads if counters.loads else 0.0
    return {
        "hits": served,
        "misses": counters.misses,
        "errors": counters.load_errors + counters.remote_errors,
        "total_requests": served + counters.misses,
        "hit_rate": round(100 * counters.hit_rate, 2),
        "stale_hits": counters.stale_hits,
        "joined": counters.joined,
        "loads": counters.loads,
        "load_errors": counters.load_errors,
        "load_seconds": round(counters.load_seconds, 6),
        "lost_fills": counters.lost_fills,
        "evictions": dict(counters.evictions),
        "expired": counters.expired,
        "entries": counters.entries,
        "bytes": counters.bytes,
        "skipped_refreshes": counters.skipped_refreshes,
        "remote_hits": counters.remote_hits,
        "remote_errors": counters.remote_errors,
        "seconds_saved": round(served * mean, 6),
        "last_error": hidden(counters.last_error),
    }


def _http(cache: Cache) -> dict[str, int] | None:
    """How routes were answered, by outcome and, where there is a reason, by "outcome: reason".

    None where route caching is not in use: it is not imported for this.
    """
    counts = sys.modules.get("stillwarm.web._counts")
    if counts is None:
        return None
    answered: dict[str, int] = {}
    for (outcome, reason), count in counts.counts(cache).items():
        answered[outcome] = answered.get(outcome, 0) + count
        if reason:
            answered[f"{outcome}: {reason}"] = count
    return answered
