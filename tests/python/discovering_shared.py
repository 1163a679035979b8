"""The discovery app with a database of its own for each test: sites on it, its rows by SQL, their age.

Thread rule: one thread.
Refuses to know: what a test is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from discovering import Site
from stillwarm import Cache
from stillwarm.testing import PostgresServer

NAMESPACE = "discovery"
KEY = "discovery:1:283155:None-20000:None-None"  # of the search for discovering.BOOKS
TABLES = ("product_discovery_cache", "product_scoring_cache")


class Shop:
    """A database, and sites on it: each as another process would be, with a memory and a product API of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sites: list[Site] = []

    def site(self, *, url: str | None = None, options: dict[str, Any] | None = None, **more: Any) -> Site:
        """`options` go to the Cache, the rest to the Site."""
        cache = Cache(url or self.url, namespace=NAMESPACE, **(options or {}))
        site = Site(cache=cache, **more)
        self.sites.append(site)
        return site

    def sql(self, text: str, *params: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text, params or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def age(self, by: str, key: str = "%") -> None:
        """Rows whose keys are LIKE `key` become older."""
        for table in TABLES:
            self.sql(
                f"UPDATE {table} SET created_at = created_at - %s::interval, expires_at = expires_at - %s::interval "
                "WHERE cache_key LIKE %s", by, by, key,
            )  # fmt: skip
        self.sql(
            "UPDATE stillwarm.entries SET created_at = created_at - %s::interval, fresh_until = fresh_until - "
            "%s::interval, expires_at = expires_at - %s::interval WHERE key LIKE %s", by, by, by, key,
        )  # fmt: skip

    def counts(self, table: str) -> dict[str, int]:
        """hit_count by key."""
        return dict(self.sql(f"SELECT cache_key, hit_count FROM {table}"))  # type: ignore[arg-type]

    def close(self) -> None:
        for site in self.sites:
            site.close()


def settled(*sites: Site) -> None:
    """What the sites have to tell the database is there: values, hit counts, history."""
    for site in sites:
        tier = site.cache._tier
        assert tier is not None
        assert tier.core.drain(30 * 10**9)
        assert site.cache._upkeep.flush()
        site.app.state.history.flush()
        assert site.app.state.history.waiting == 0


@pytest.fixture
def shop(warm_postgres: PostgresServer) -> Iterator[Shop]:
    shop = Shop(warm_postgres.new_database())
    yield shop
    shop.close()


@pytest.fixture
def site(shop: Shop) -> Site:
    return shop.site()


@pytest.fixture
def make_site(shop: Shop) -> Callable[..., Site]:
    return shop.site
