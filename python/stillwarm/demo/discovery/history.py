"""The history of searches: who looked for what, and how much was found. It never expires, and no cache holds it.

Thread rule: any thread.
Refuses to know: caches; what is searched.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter, deque
from datetime import datetime, timezone
from typing import Any, Final, Protocol

_MOST: Final = 100_000


class History(Protocol):
    """An append-only record. `record` must not wait for a database; the others may."""

    def record(self, **columns: Any) -> None:
        """Adds a row: user_id, search_type (discovery, scoring, autosourcing), filters, results_count, source."""

    def count_by(self, column: str) -> dict[str, int]:
        """How many rows there are for each value of a column."""

    def frequent(self, column: str, limit: int) -> list[tuple[Any, int]]:
        """The most frequent values of a column with their counts, the most frequent first."""


class MemoryHistory:
    """The history where there is no database: the last 100,000 rows, which end with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def record(self, **columns: Any) -> None:
        row = {"id": str(uuid.uuid4()), "created_at": datetime.now(timezone.utc), **columns}
        with self._lock:
            self._rows.append(row)

    def count_by(self, column: str) -> dict[str, int]:
        return dict(Counter(str(row[column]) for row in self.rows()))

    def frequent(self, column: str, limit: int) -> list[tuple[Any, int]]:
        texts = Counter(json.dumps(row[column], sort_keys=True) for row in self.rows())
        return [(json.loads(text), count) for text, count in texts.most_common(limit)]

    def rows(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        with self._lock:
            return list(self._rows)


__all__ = ["History", "MemoryHistory"]
