"""Workers of the voc app, each a process: for each line on stdin, `ours` or `naive`, one more, which says "PID URL".

`python -m reliability.voc_worker URL NAMESPACE`. They are forks of the program, and end with it. `naive` is what one
writes without the library: it looks whether the row is there before it inserts it, and its cache hears nothing of what
is written.

Thread rule: the program has one thread, so that it may fork.
Refuses to know: pytest, and who kills which.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import types
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from stillwarm import Cache, Retry, transient
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.voc.app import create_app
from stillwarm.demo.voc.service import Service
from stillwarm.demo.voc.windows import Windows, periods


class Naive(Service):
    """Looks, then writes. That two of them look before either writes is seen to here."""

    looked = 0

    async def save(self, start_at: datetime, end_at: datetime, source: str) -> Any:
        await self._ready("20s")
        key = (periods.c.start_at == start_at) & (periods.c.end_at == end_at)
        async with self.windows.sessions() as session:
            there = (await session.execute(sa.select(periods.c.id).where(key))).first()
            self.looked += 1
            while self.looked < 2:
                await asyncio.sleep(0.001)
            if there is None:
                row = {"start_at": start_at, "end_at": end_at, "source": source}
                await session.execute(sa.insert(periods).values(row))
            else:
                await session.execute(sa.update(periods).where(key).values(source=source))
            await session.commit()
        return types.SimpleNamespace(outcome="updated" if there else "inserted", row={})


def serve(kind: str, url: str, namespace: str) -> None:
    for name in ("stillwarm", "psycopg"):
        logging.getLogger(name).addHandler(logging.NullHandler())  # that a session was ended is the test's doing
        logging.getLogger(name).propagate = False
    # Nothing here is about time limits, and the machine may be busy.
    cache = Cache(url, namespace=namespace, timeout="20s", connect_timeout="20s", purge_every=None)
    retry = Retry(on=transient, base=0.001, cap=0.004, budget=None, name="voc")
    waits: Any = {"attempt": "20s", "soft": "60s", "hard": "60s"}
    service = (Service if kind == "ours" else Naive)(Windows(url), cache, retry, **waits)
    app: Any = create_app(service, prefetch=False)
    server = AsgiServer(app, lifespan=True)
    print(f"{os.getpid()} {server.url}", flush=True)
    threading.Event().wait()


def main(url: str, namespace: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how one ended
    workers = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                serve(line.strip(), url, namespace)
            finally:
                os._exit(1)
        workers.append(pid)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
