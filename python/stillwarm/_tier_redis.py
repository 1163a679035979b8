"""The Redis tier of a cache as the Python side sees it: what differs from PostgreSQL.

Thread rule: as _tier.
Refuses to know: scripts and commands (cpp/core/remote/redis_scripts.hpp).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from stillwarm import _core, _url
from stillwarm._tier import LEASE_AGE, Steps, Tier
from stillwarm._tier_health import raised
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._tables import TypedTable

NEEDS_SQL = 'this needs the PostgreSQL tier, and the cache has a Redis tier; accepted: Cache("postgresql://...")'


class RedisTier(Tier):
    """Values, marks and leases in Redis. It knows no SQL, and so no types with tables of their own."""

    name: ClassVar[str] = "Redis"
    speaks_sql: ClassVar[bool] = False
    leases_along: bool = True
    denied: ClassVar[tuple[str, ...]] = ("NOAUTH", "WRONGPASS", "NOPERM", "CLUSTER", "CROSSSLOT", "TLS")

    def _core_for(
        self, url: str, connect_timeout: int, connections: int, queue: int, max_lag: int, pooler: bool
    ) -> _core.RemoteTier:
        address = _url.usable_redis_address(url)
        self.in_parts = address.cluster
        return _core.RedisTier(
            *address, connect_timeout, self.namespace, self.process, connections, self.timeout, queue, max_lag,
            LEASE_AGE,
        )  # fmt: skip

    def command(self, *words: str, timeout: float = 5.0) -> list[tuple[str | None, ...]]:
        """Any one command; a row for each element of its answer.

        Raises:
            TierError: what the server or the connection said.
        """
        request = _core.query("command", list(words), int(timeout * 1e9))
        error = self.run(request)
        if error is not None:
            raise raised(error)
        return request.rows

    def query(self, sql: str, params: Sequence[str | None] = (), timeout: float = 5.0) -> list[tuple[str | None, ...]]:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(NEEDS_SQL)

    async def aquery(
        self, sql: str, params: Sequence[str | None] = (), timeout: float = 5.0
    ) -> list[tuple[str | None, ...]]:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(NEEDS_SQL)

    def was_done(self, name: str, origin: str, moment: str) -> Steps[bool | None]:
        request = _core.query("done", [origin, moment, name], 0)
        error = yield request
        answer = None if error is not None else request.rows[0][0]
        return None if answer not in ("0", "1") else answer == "1"

    def add_table(self, table: TypedTable) -> None:
        """Types with a table of their own are rows of PostgreSQL.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"type {table.type!r}: table=: {NEEDS_SQL}")


__all__ = ["NEEDS_SQL", "RedisTier"]
