"""Grounds to test a cache on: memory alone, or a namespace in a private PostgreSQL or Redis; time that passes there.

Thread rule: a Ground belongs to its test's thread; its `sql` may be called by any thread.
Refuses to know: what is tested.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, _core
from stillwarm._ask_redis import ask_redis
from stillwarm._redis_clusters import RedisCluster, RedisSentinel
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer
from stillwarm._url import redis_address

# What entries are after some time, as the server's clock would make them: fresh for less, and gone sooner.
_OLDER = """
for _, entry in ipairs(redis.call('KEYS', ARGV[1])) do
  local fresh, left = tonumber(redis.call('GETRANGE', entry, 33, 46)), redis.call('PTTL', entry)
  if fresh < 99999999999999 then redis.call('SETRANGE', entry, 33, string.format('%014.0f', fresh - ARGV[2])) end
  if left >= 0 then redis.call('PEXPIRE', entry, left - ARGV[2]) end
end
"""
# Leases of a namespace: name, owner, ms until which.
_LEASES = """
local told = {}
for _, name in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  told[#told + 1] = {string.sub(name, #ARGV[1] + 1), redis.call('GET', name), redis.call('PEXPIRETIME', name)}
end
return told
"""
# A type is invalidated as by the tier's own script, which then tells nobody: there is no message.
_MARK = """
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('HSET', KEYS[1], 'type:' .. ARGV[1], n)
redis.call('RPUSH', KEYS[2], 'nobody\\0000type:' .. ARGV[1])
"""
PATIENCE = 30.0  # s that a condition may need on a busy machine
_numbers = itertools.count(1)


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true answer of the condition: for the state of other threads, processes and the server."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, what or "the condition never became true"
        pause.wait(0.005)
    return answer


class Ground:
    """A namespace: `cache()` makes caches of it, which know each other only through the server."""

    def __init__(self, url: str | None, direct_url: str | None = None, **options: Any) -> None:
        self.url = url
        self.direct_url = direct_url or url  # past a pooler
        self.namespace = f"t{next(_numbers)}"
        self.caches: list[Cache] = []
        self._options = {"jitter": 0.0, **options}
        if url is not None:  # the machine may be busy: nothing here is about time limits
            self._options = {"timeout": "20s", "connect_timeout": "20s", "purge_every": None, **self._options}

    def cache(self, **options: Any) -> Cache:
        cache = Cache(self.url, namespace=self.namespace, **{**self._options, **options})
        self.caches.append(cache)
        return cache

    def other(self, cache: Cache, **options: Any) -> Cache:
        """What another process has: memory alone is nobody else's."""
        return cache if self.url is None else self.cache(**options)

    def sql(self, text: str, *params: object) -> list[tuple[Any, ...]]:
        assert self.direct_url is not None
        with psycopg.connect(self.direct_url, autocommit=True) as connection:
            cursor = connection.execute(text, params or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    @property
    def is_redis(self) -> bool:
        return self.url is not None and not self.url.startswith("postgres")

    def redis(self, *words: object) -> Any:
        """One command in this ground's database."""
        assert self.direct_url is not None
        address = redis_address(self.direct_url)
        commands = [("SELECT", address.database), words]
        return ask_redis((address.host, address.port), commands, PATIENCE, tls=address.tls)[-1]

    @property
    def entries(self) -> str:
        """A glob for their names in Redis."""
        return f"stillwarm:{{{self.namespace}}}:e:*"

    def _in_bucket(self, name: str) -> str:
        return f"stillwarm:{{{self.namespace}}}:{name}"

    def stored(self) -> int:
        """How many entries with a value the tier has."""
        if self.is_redis:
            return len(self.redis("KEYS", self.entries))
        return len(self.rows(where="payload IS NOT NULL"))

    def leases(self) -> list[tuple[str, str, Any]]:
        """Key, owner, until when."""
        if self.is_redis:
            told = self.redis("EVAL", _LEASES, 0, self._in_bucket("x:"))
        else:
            told = self.sql("SELECT key, owner, expires_at FROM stillwarm.leases WHERE namespace = %s", self.namespace)
        return [(key, owner, until) for key, owner, until in told]

    def expire_leases(self) -> int:
        """As their age does it; how many there were."""
        if self.is_redis:
            return sum(int(self.redis("DEL", self._in_bucket("x:") + key)) for key, *_ in self.leases())
        return len(
            self.sql(
                "UPDATE stillwarm.leases SET expires_at = clock_timestamp() - interval '1 s' WHERE namespace = %s "
                "RETURNING 1",
                self.namespace,
            )
        )

    def mark_type(self, name: str = "default") -> None:
        """Invalidates a type as another process does it whose message is lost."""
        if self.is_redis:
            self.redis("EVAL", _MARK, 2, self._in_bucket("m"), self._in_bucket("l"), name)
        else:
            self.sql(
                "INSERT INTO stillwarm.invalidations (namespace, name) VALUES (%s, %s)", self.namespace, f"type:{name}"
            )

    def cut_listeners(self) -> None:
        """Ends the connections by which this database's caches hear of each other."""
        if self.is_redis:
            for line in self._clients("TYPE", "pubsub"):
                self.redis("CLIENT", "KILL", "ID", line.split()[0].partition("=")[2])
        else:
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND "
                "pid <> pg_backend_pid() AND query ~ "
                "'^(LISTEN|NOTIFY|SELECT pg_current_snapshot\\(\\)::text, coalesce)'"
            )

    def _clients(self, *which: str) -> list[str]:
        database = f" db={str(self.direct_url).rpartition('/')[2]} "
        return [line for line in self.redis("CLIENT", "LIST", *which).splitlines() if database in line]

    @contextlib.contextmanager
    def writes_held(self) -> Iterator[Callable[[], bool]]:
        """Nothing is written meanwhile. Gives what says whether a write waits for that."""
        if self.is_redis:
            self.redis("CLIENT", "PAUSE", int(PATIENCE * 1000), "WRITE")
            try:
                yield lambda: any(" flags=b" in line for line in self._clients())
            finally:
                self.redis("CLIENT", "UNPAUSE")
            return
        assert self.direct_url is not None
        with psycopg.connect(self.direct_url) as other, psycopg.connect(self.direct_url, autocommit=True) as third:
            other.execute("LOCK TABLE stillwarm.invalidations IN SHARE ROW EXCLUSIVE MODE")
            other.execute("SELECT 1 FROM stillwarm.entries FOR UPDATE")
            yield lambda: third.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None

    def rows(self, columns: str = "key", where: str = "true") -> list[tuple[Any, ...]]:
        return self.sql(
            f"SELECT {columns} FROM stillwarm.entries WHERE namespace = %s AND {where} ORDER BY key", self.namespace
        )

    def written(self) -> None:
        """Until everything that was written behind is there."""
        for cache in self.caches:
            if cache._tier is not None and not cache._tier.closed:
                assert cache._tier.core.drain(int(PATIENCE * 1e9)), "something is owed for ever"

    def pass_time(self, seconds: float) -> None:
        """Both clocks: the caches' is moved, and rows become older."""
        if self.is_redis:
            self.written()
            self.redis("EVAL", _OLDER, 0, self.entries, int(seconds * 1000))
        elif self.url is not None:
            self.written()
            self.sql(
                "UPDATE stillwarm.entries SET created_at = created_at - %s * interval '1 s', "
                "fresh_until = fresh_until - %s * interval '1 s', expires_at = expires_at - %s * interval '1 s' "
                "WHERE namespace = %s",
                seconds, seconds, seconds, self.namespace,
            )  # fmt: skip
        _core.clock_set(_core.clock_now() + int(seconds * 1e9))

    def close(self) -> None:
        for cache in self.caches:
            cache.close()


@pytest.fixture(scope="session")
def shared_database(warm_postgres: PostgresServer) -> str:
    """A database with the library's tables, for namespaces."""
    url = warm_postgres.new_database()
    with Cache(url, timeout="20s", connect_timeout="20s") as cache:
        cache.migrate()
    return url


@pytest.fixture
def ground(postgres_ground: Ground) -> Ground:
    """PostgreSQL, unless a module says otherwise."""
    return postgres_ground


@pytest.fixture
def postgres_ground(shared_database: str) -> Iterator[Ground]:
    """PostgreSQL."""
    ground = Ground(shared_database)
    try:
        yield ground
    finally:
        ground.close()


@pytest.fixture(params=["postgres", "redis"])
def each_ground(request: pytest.FixtureRequest) -> Ground:
    """PostgreSQL, and Redis: for what is about any tier."""
    ground: Ground = request.getfixturevalue("postgres_ground" if request.param == "postgres" else "redis_ground")
    return ground


@pytest.fixture
def redis_ground(warm_redis: RedisServer) -> Iterator[Ground]:
    """Redis."""
    ground = Ground(warm_redis.new_database())
    try:
        yield ground
    finally:
        ground.close()


@pytest.fixture(scope="session")
def shared_sentinel() -> Iterator[RedisSentinel]:
    """A master with a replica and three sentinels; no test hurts them."""
    with RedisSentinel() as service:
        yield service


def sentinel_ground(service: RedisSentinel, **options: Any) -> Ground:
    """A database of the service's master, found by the sentinels."""
    database = service.new_database()
    return Ground(service.url_of(database), service.master.url_of(database), **options)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """Three masters with a replica each; no test hurts them."""
    with RedisCluster() as cluster:
        yield cluster


class ClusterGround(Ground):
    """A namespace on a cluster: what is asked of the database is asked of every master."""

    def __init__(self, cluster: RedisCluster, **options: Any) -> None:
        super().__init__(cluster.url, **options)
        self.cluster = cluster

    def redis(self, *words: object) -> Any:
        return self.cluster.everywhere(*words)

    @property
    def entries(self) -> str:
        return f"stillwarm:{{{self.namespace}.*}}:e:*"


def with_port(url: str, port: int) -> str:
    """The same database through a proxy."""
    return re.sub(r":\d+/", f":{port}/", url)


class Counted:
    """A loader that counts itself, by key, and may be held: `gate` is what it waits for, `begun` what it tells."""

    def __init__(self) -> None:
        self.calls: dict[Any, int] = {}
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.value: Callable[[Any], Any] = lambda key: f"{key}#{self.calls[key]}"
        self._lock = threading.Lock()

    def __call__(self, key: Any = "k") -> Any:
        with self._lock:
            self.calls[key] = self.calls.get(key, 0) + 1
            value = self.value(key)  # what a load brings is what it found when it began
        self.begun.release()
        assert self.gate.wait(PATIENCE), "the gate was never opened"
        return value

    @property
    def total(self) -> int:
        return sum(self.calls.values())


def function(cache: Cache, source: Callable[..., Any], name: str = "f", **options: Any) -> Any:
    """The source behind a plain cached function of one argument."""
    options.setdefault("ttl", 100)

    @cache.cached(name=name, **options)
    def f(key: Any = "k") -> Any:
        return source(key)

    return f
