"""How the requests of a cache's routes were answered.

Thread rule: any thread; a count is one dict update under the GIL.
Refuses to know: who shows the figures.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

_fronts: weakref.WeakKeyDictionary[Any, list[weakref.ref[Any]]] = weakref.WeakKeyDictionary()


def register(cache: Any, front: Any) -> None:
    """Counts the front among those of its cache."""
    _fronts.setdefault(cache, []).append(weakref.ref(front))


def counts(cache: Any) -> dict[tuple[str, str], int]:
    """Answers by (outcome, reason). Outcomes: hit, stale, miss, bypass, warning; some have no reason."""
    total: Counter[tuple[str, str]] = Counter()
    for ref in _fronts.get(cache, []):
        front = ref()
        if front is not None:
            total.update(front.counts)
            if front.core.hits:
                total["hit", ""] += front.core.hits
    return dict(total)
