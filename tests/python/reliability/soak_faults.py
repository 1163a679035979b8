"""The faults of the soak, on two private servers behind proxies, and on one of the two workers.

A deck per tier is shuffled and dealt, so that each fault has its turn; tiers alternate. Of the workers only the second
one is killed: the figures of the first one, over the whole run, say whether anything grows.

Thread rule: one thread begins and ends faults.
Refuses to know: caches, and what a fault must not do.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from chaos import ChaosProxy
from reliability.soak_app import TIERS
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer

SHORTEST, LONGEST = 0.4, 2.0  # s that a fault lasts which does not end by itself


@dataclass(frozen=True)
class Fault:
    name: str
    begin: Callable[[], Any]
    end: Callable[[], Any] | None = None  # None: it is over at once
    of_worker: bool = False


class Ground:
    """Both servers and their proxies."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.postgres = stack.enter_context(PostgresServer())
            self.redis = stack.enter_context(RedisServer())
            self.proxies = {
                "pg": stack.enter_context(ChaosProxy(self.postgres.port)),
                "redis": stack.enter_context(ChaosProxy(self.redis.port)),
            }
            self._stack = stack.pop_all()

    @property
    def urls(self) -> dict[str, str]:
        return {
            "pg": f"postgresql://{self.postgres.user}@127.0.0.1:{self.proxies['pg'].port}/postgres",
            "redis": f"redis://127.0.0.1:{self.proxies['redis'].port}/0",
        }

    def counts(self) -> dict[str, int]:
        """How much is kept: nothing of it may grow for ever. Raises ServerError while a server is away."""
        rows = self.postgres.sql(
            "SELECT (SELECT count(*) FROM stillwarm.entries), (SELECT count(*) FROM stillwarm.invalidations)", timeout=2
        )
        return {
            "rows of entries": int(rows[0][0] or 0),
            "rows of invalidations": int(rows[0][1] or 0),
            "keys in Redis": int(self.redis.command("DBSIZE", timeout=2.0)),
        }

    def close(self) -> None:
        self._stack.close()

    def faults(self, tier: str, kill_worker: Callable[[], Any]) -> list[Fault]:
        server: Any = self.postgres if tier == "pg" else self.redis
        proxy = self.proxies[tier]

        def refuse() -> None:
            proxy.behave(refuse=True)
            proxy.end_all("reset")

        both = [
            Fault("killed -9", server.kill, server.start),
            Fault("frozen", server.freeze, server.thaw),
            Fault("connections reset", lambda: proxy.end_all("reset")),
            Fault("connections ended", lambda: proxy.end_all("fin")),
            Fault("cut in mid-reply", lambda: proxy.behave(cut_after=20, end="reset"), proxy.behave),
            Fault("0.4 s late", lambda: proxy.behave(delay=0.4), proxy.behave),
            Fault("byte by byte", lambda: proxy.behave(chunk=1, delay=0.02), proxy.behave),
            Fault("refused", refuse, proxy.behave),
            Fault("worker killed -9", kill_worker, of_worker=True),
        ]
        return both + (self._of_postgres() if tier == "pg" else self._of_redis())

    def _of_postgres(self) -> list[Fault]:
        def terminate() -> None:
            self.postgres.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stillwarm'"
            )

        return [Fault("pg_terminate_backend", terminate)]

    def _of_redis(self) -> list[Fault]:
        command = self.redis.command

        def little(policy: str) -> None:
            """Less memory than is used: what is written is refused, or something else is evicted."""
            used = next(line for line in command("INFO", "memory").split("\r\n") if line.startswith("used_memory:"))
            limit = int(used.partition(":")[2]) + (4_096 if policy == "allkeys-lru" else -100_000)
            command("CONFIG", "SET", "maxmemory-policy", policy)
            command("CONFIG", "SET", "maxmemory", limit)

        def enough() -> None:
            command("CONFIG", "SET", "maxmemory", 0)

        return [
            Fault("FLUSHALL", lambda: command("FLUSHALL")),
            Fault("SCRIPT FLUSH", lambda: command("SCRIPT", "FLUSH")),
            Fault("full, noeviction", lambda: little("noeviction"), enough),
            Fault("full, allkeys-lru", lambda: little("allkeys-lru"), enough),
        ]


def dealt(ground: Ground, kill_worker: Callable[[], Any], rng: random.Random) -> Iterator[tuple[str, Fault, float]]:
    """(tier, fault, how long it lasts) for ever."""
    decks: dict[str, list[Fault]] = {tier: [] for tier in TIERS}
    while True:
        for tier in TIERS:
            if not decks[tier]:
                decks[tier] = ground.faults(tier, kill_worker)
                rng.shuffle(decks[tier])
            lasts = rng.uniform(SHORTEST, LONGEST)
            fault = decks[tier].pop()
            yield tier, fault, lasts if fault.end is not None else 0.0


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
