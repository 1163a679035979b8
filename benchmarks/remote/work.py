"""Operations per second of threads and tasks against a server, and the CPU time of both sides.

Thread rule: starts threads of its own. Refuses to know: which server, and what an operation is.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol


class Server(Protocol):
    """A private server."""

    def processes(self) -> list[int]: ...


class Figures:
    """Operations per second and CPU per operation of one subject, over rounds."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.client: list[float] = []
        self.server: list[float] = []

    def row(self) -> str:
        rates = sorted(self.rates)
        low, high = rates[len(rates) // 4], rates[-1 - len(rates) // 4]
        return (
            f"{statistics.median(rates):>9,.0f} | {low:,.0f} to {high:,.0f} | {1e6 / statistics.median(rates):.1f} | "
            f"{statistics.median(self.client):.1f} | {statistics.median(self.server):.1f}"
        )


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def compared(figures: dict[str, Figures], questions: list[tuple[str, str, str, float | None]]) -> list[str]:
    """Rows of a table: what (ours), beside what, how many times as many per second, and at least how many times."""
    lines = []
    for question, mine, theirs, goal in questions:
        times = ratio(figures[mine].rates, figures[theirs].rates)
        lines.append(_line(question, figures[mine], theirs, figures[theirs], times, goal))
    return lines


def _line(question: str, mine: Figures, name: str, theirs: Figures, times: float, goal: float | None) -> str:
    rates = [f"{statistics.median(of.rates):,.0f}/s" for of in (mine, theirs)]
    asked = ("", "") if goal is None else (f">= {goal:g} x", "yes" if times >= goal else "**no**")
    rival = name.partition(": ")[2]
    return f"| {question} | {rates[0]} | {rival} {rates[1]} | {times:.2f} x | {asked[0]} | {asked[1]} |"


def in_cpp(rival: str, mine: list[float], theirs: list[float], most: float) -> str:
    """One caller without Python, in us a get; a row of the same table."""
    times = ratio(mine, theirs)
    us = [f"{statistics.median(of):.1f} us" for of in (mine, theirs)]
    reached = "yes" if times <= most else "**no**"
    return f"| get, 1 caller, in C++ | {us[0]} | {rival} {us[1]} | {times:.2f} x the time | <= {most:g} x | {reached} |"


QUESTIONS = "| question | ours | rival | ratio | goal | reached |\n|---|---|---|---|---|---|"


def server_cpu(server: Server) -> float:
    """CPU seconds of all the server's processes."""
    total = 0
    for pid in server.processes():
        try:
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        except (OSError, IndexError):  # noqa: PERF203  # one of them has ended
            pass
    return total / 1e9


def measured(server: Server, figures: Figures, work: Callable[[float], int], seconds: float) -> None:
    client, behind, start = time.process_time(), server_cpu(server), time.perf_counter()
    done = max(work(start + seconds), 1)
    took = time.perf_counter() - start
    figures.rates.append(done / took)
    figures.client.append((time.process_time() - client) / done * 1e6)
    figures.server.append((server_cpu(server) - behind) / done * 1e6)


def threads(count: int, one: Callable[[int, int], None]) -> Callable[[float], int]:
    """Work that `count` threads do; one(thread, i) is one operation."""

    def work(until: float) -> int:
        done = [0] * count
        gate = threading.Barrier(count)

        def run(n: int) -> None:
            gate.wait()
            i = n * 7919
            while time.perf_counter() < until:
                for _ in range(10):
                    i += 1
                    one(n, i)
                done[n] += 10

        if count == 1:
            run(0)
        else:
            workers = [threading.Thread(target=run, args=(n,)) for n in range(count)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return sum(done)

    return work


def tasks(count: int, loop: asyncio.AbstractEventLoop, one: Callable[[int], Awaitable[Any]]) -> Callable[[float], int]:
    """Work that `count` tasks of a loop do."""

    def work(until: float) -> int:
        async def run(n: int) -> int:
            done, i = 0, n * 7919
            while time.perf_counter() < until:
                for _ in range(10):
                    i += 1
                    await one(i)
                done += 10
            return done

        async def everyone() -> int:
            return sum(await asyncio.gather(*(run(n) for n in range(count))))

        return loop.run_until_complete(everyone())

    return work
