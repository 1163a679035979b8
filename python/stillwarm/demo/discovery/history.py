"""The history of searches: who looked for what, and how much was found. It never expires, and no cache holds it.

Thread rule: any thread.
Refuses to know: what is searched.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import Counter, deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Protocol

from stillwarm.demo.discovery.tables import HISTORY
from stillwarm.errors import TierError
from stillwarm.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillwarm import Cache

_MOST: Final = 100_000
_log = logging.getLogger("stillwarm.demo.discovery")


class History(Protocol):
    """An append-only record. `record` must not wait for a database; the others may, and raise TierError."""

    def record(self, **columns: Any) -> None:
        """Adds a row: user_id, search_type (discovery, scoring, autosourcing), filters, results_count, source."""

    def flush(self) -> int:
        """Writes what waits."""

    def count_by(self, column: str, /) -> dict[str, int]:
        """How many rows there are for each value of a column."""

    def frequent(self, column: str, limit: int, /) -> list[tuple[Any, int]]:
        """The most frequent values of a column with their counts, the most frequent first."""

    def close(self) -> None:
        """Writes what waits, and ends."""


class MemoryHistory:
    """The history where there is no database: the last 100,000 rows, which end with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def record(self, **columns: Any) -> None:
        row = {"id": str(uuid.uuid4()), "created_at": datetime.now(timezone.utc), **columns}
        with self._lock:
            self._rows.append(row)

    def flush(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def count_by(self, column: str, /) -> dict[str, int]:
        return dict(Counter(str(row[column]) for row in self.rows()))

    def frequent(self, column: str, limit: int, /) -> list[tuple[Any, int]]:
        texts = Counter(json.dumps(row[column], sort_keys=True) for row in self.rows())
        return [(json.loads(text), count) for text, count in texts.most_common(limit)]

    def rows(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        with self._lock:
            return list(self._rows)


class TableHistory(Journal):
    """The history in the table search_history of the cache's database.

    It makes all tables of the app, or brings them forward: at once, or with the first statement that the database
    answers again. An app starts without it.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache, self._made = cache, False
        super().__init__(self._ask, **HISTORY)
        try:
            self._make()
        except TierError as error:
            _log.warning("the database does not answer, and its tables are made when it does: %s", error)

    def _make(self) -> None:
        self._cache.migrate([self])
        self._made = True

    def _ask(self, sql: str, params: Sequence[str | None]) -> list[tuple[str | None, ...]]:
        if not self._made:
            self._make()
        return self._cache.query(sql, params)


def history_of(cache: Cache) -> History:
    """The history where the cache has its entries: in its database, or in memory."""
    return MemoryHistory() if cache._tier is None else TableHistory(cache)


__all__ = ["History", "MemoryHistory", "TableHistory", "history_of"]
