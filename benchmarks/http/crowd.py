"""Many clients at once ask for a page that is not there yet: how often it is made, and when the last one has it.

Thread rule: one thread. Refuses to know: how they wait for each other.

The connections are open, and each has been used, before any asks; the answers are gathered by one epoll. What the
worker needs to answer as many hits is measured the same way, over the same connections.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import statistics
import time
from collections.abc import Iterator

from apps import PATH
from python.measure import Row, Section
from python.report import number
from servers import PATIENCE, Server

SIZE = 1_000
QUICK_SIZE = 100
TIMES = 2.0  # the worker's time for as many hits, after the load
KINDS = {
    "FastAPI, uvicorn": ("uvicorn", "fastapi_dashboard"),
    "Flask, gunicorn gthread": ("gthread", "flask_dashboard"),
}


def sections(quick: bool) -> Iterator[Section]:
    size = QUICK_SIZE if quick else SIZE
    section = Section(f"{size:,} clients and a cold page of 610 ms", "ms", columns="loads")
    for name, (kind, app) in KINDS.items():
        with Server(kind, app) as server, contextlib.ExitStack() as stack:
            crowd = Crowd(server, size, stack)
            crowd.ask("/loads")
            delays, loads = [], 0
            repeats = 1 if quick else 5
            for n in range(repeats):
                path = f"{PATH}?n={n}"
                took, answer = crowd.ask(path)
                delays.append(took - json.loads(answer)[0] * 1e3)
                before, loads = loads, int(server.get("/loads")[2])
                if loads != before + 1:
                    section.notes.append(f"{name}: {loads - before} loads of {path}")
            hits = statistics.median(crowd.ask(f"{PATH}?n=0")[0] for _ in range(repeats))
        delay = statistics.median(delays)
        section.bars.append((f"stillwarm, {kind}, after the load", delay, f"{loads} in {repeats} times"))
        section.bars.append((f"{kind}, as many hits", hits, "-"))
        section.rows.append(
            Row(
                f"{size:,} cold requests, {name}",
                f"{'1 load' if loads == repeats else f'{loads} loads in {repeats} times'}, load + {number(delay)} ms",
                f"as many hits {number(hits)} ms",
                f"{delay / hits:.3g}",
                f"1 load, <= {TIMES:g} x",
                loads == repeats and (quick or delay <= TIMES * hits),
            )
        )
    section.notes.append(
        f"medians of {repeats}; until the last answer, from the first request sent, less the time of the load"
    )
    yield section


class Crowd:
    """`size` connections that ask at once."""

    def __init__(self, server: Server, size: int, stack: contextlib.ExitStack) -> None:
        raise_limit(size + 200)
        self._port = server.port
        self._epoll = stack.enter_context(select.epoll())
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(size):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
            self._sockets[one.fileno()] = one
            self._epoll.register(one.fileno(), select.EPOLLIN)

    def ask(self, path: str) -> tuple[float, bytes]:
        """Milliseconds from the first request to the last answer, and the body of that one."""
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode()
        waiting = dict.fromkeys(self._sockets, b"")
        body = b""
        start = time.perf_counter()
        for one in self._sockets.values():
            one.sendall(request)
        while waiting:
            ready = self._epoll.poll(PATIENCE)
            if not ready:
                raise RuntimeError(f"{len(waiting)} of {len(self._sockets)} clients have no answer to {path}")
            for file, _ in ready:
                part = self._sockets[file].recv(65_536)
                waiting[file] += part
                found = whole(waiting[file])
                if found is not None:
                    body = found
                    del waiting[file]
                elif not part:
                    raise RuntimeError(f"the server closed a connection: {waiting[file][:200]!r}")
        return (time.perf_counter() - start) * 1e3, body


def whole(answer: bytes) -> bytes | None:
    """The body, when all of it is there."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"answer: {head!r}")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return body if len(body) >= length else None


def raise_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
