"""Minutes of many clients on a moved clock: how often the database is asked, and how many of them there are.

The cache is in memory here: a database's clock is its own, and what it shares does not expire with ours.

Thread rule: one thread, alone with the clock: while it runs, time is moved for every cache of the process.
Refuses to know: HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from stillwarm import Cache
from stillwarm.demo.voc.service import Service
from stillwarm.demo.voc.site import Clock, Queries
from stillwarm.demo.voc.windows import Windows

MINUTES: Final = 10


class Load(NamedTuple):
    """What a minute of clients costs, on average."""

    requests: float
    refreshes: float
    queries: float


def run_minutes(url: str, clients: int) -> Load:
    """So many requests for the status a minute, evenly spread."""
    return asyncio.run(_run(url, clients))


async def _run(url: str, clients: int) -> Load:
    windows, clock = Windows(url), Clock()
    queries = Queries(windows)
    with Cache(namespace="voc_minutes") as cache:
        # Nobody waits less because the machine is busy: what is counted are queries.
        service = Service(windows, cache, clock=clock, attempt="20s", soft="60s", hard="60s")
        requests = clients * MINUTES
        try:
            clock.move(0)
            for _ in range(requests):
                await service.get_status()
                clock.move(60 / clients)
        finally:
            clock.back()
            await windows.close()
        refreshes = service.status.cache_info().loads
    return Load(requests / MINUTES, refreshes / MINUTES, queries.count / MINUTES)


__all__ = ["MINUTES", "Load", "run_minutes"]
