"""A tier under faults, with figures: overrun of deadlines, time to recover, wrong values, lost hit counts.

Thread rule: each measurement has a server, a proxy and threads of its own.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from chaos import ChaosProxy
from outages import DEADLINE, Shared, answers, eventually, forget, is_of, shared, value_of
from reliability import children
from reliability.lateness import Lateness
from served import Served
from stillwarm._servers import PostgresServer

EXITS = ("calls", "calls_frozen", "many_frozen", "owed", "tasks", "idle")


def exit_of(how: str, server: Served, watchdog: float = 60.0) -> children.Ended:
    """Runs isolated/tier_exits.py, and freezes the server when it asks for that."""
    paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
    child = subprocess.Popen(
        [sys.executable, str(children.TESTS / "isolated" / "tier_exits.py"), how, server.url],
        env=dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    hung: list[bool] = []

    def abort() -> None:
        hung.append(True)
        child.send_signal(signal.SIGABRT)

    timer = threading.Timer(watchdog, abort)
    timer.start()
    lateness = Lateness()
    output, froze = "", False
    try:
        for line in child.stdout:
            output += line
            if line == "freeze\n":
                server.freeze()
                froze = True
                child.stdin.write("\n")
                child.stdin.flush()
        code = child.wait()
        now = time.monotonic()
    finally:
        timer.cancel()
        lateness.close()
        if froze:
            server.thaw()
    assert child.stderr is not None
    errors = child.stderr.read()
    last = output.rsplit("end ", 1)
    after = now - float(last[1]) if len(last) == 2 and not hung else float("nan")
    for pipe in (child.stdin, child.stdout, child.stderr):
        with contextlib.suppress(OSError):
            pipe.close()
    return children.Ended(code, output, errors, after, lateness.during(now - after, now))


class Outcome(NamedTuple):
    """What happened to calls during a fault."""

    calls: int
    wrong: int  # a value that is not the key's, or an error
    overrun: float  # s past the deadline, of the slowest call
    recovery: float  # s from the end of the fault until the tier is used again

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls, {self.wrong} wrong, slowest {self.overrun * 1e3:+.0f} ms from its deadline,"
            f" used again after {self.recovery:.2f} s"
        )


def used_again(one: Shared) -> float:
    """Seconds until the tier gives back what it is given. The calls of this wait carry no probe but their own."""
    return eventually(lambda: answers(one), 60)


def under(
    one: Shared, begin: Callable[[], Any], end: Callable[[], Any], seconds: float = 3.0, threads: int = 4
) -> Outcome:
    """Calls by threads while the fault is there; their loader takes no time, so that what they take is the tier's."""
    stop = threading.Event()
    wrong, slowest, calls = [0] * threads, [0.0] * threads, [0] * threads

    def use(i: int) -> None:
        rng = random.Random(i)
        while not stop.is_set():
            key = f"u{rng.randrange(10**9)}"
            began = time.monotonic()
            try:
                good = is_of(one.get(key), key)
            except Exception:
                good = False
            slowest[i] = max(slowest[i], time.monotonic() - began)
            wrong[i] += not good
            calls[i] += 1
            stop.wait(0.001)

    one.get("warm")
    begin()
    running = [threading.Thread(target=use, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in running:
        thread.join()
    end()
    return Outcome(sum(calls), sum(wrong), max(slowest) - DEADLINE, used_again(one))


@contextlib.contextmanager
def proxied(server: Served) -> Iterator[tuple[ChaosProxy, Shared]]:
    with ChaosProxy(server.port) as proxy:
        one = Shared(server.through(proxy, server.new_database()))
        try:
            yield proxy, one
        finally:
            one.cache.close()


def faults(server: Served) -> Iterator[tuple[str, Outcome]]:
    """One fault after the other."""
    one = Shared(server.url)
    yield "frozen (SIGSTOP)", under(one, server.freeze, server.thaw)
    yield "killed -9, started again", under(one, server.kill, server.start)
    one.cache.close()
    for name, behaviour in {
        "half open": {"cut_after": 0, "end": "silence"},
        "reset in mid-reply": {"cut_after": 60, "end": "reset"},
        "end in mid-reply": {"cut_after": 60},
        "refused": {"refuse": True},
        "garbage": {"garbage": b"\0" * 64},
        "one byte every 50 ms": {"chunk": 1, "delay": 0.05},
        "3 s late": {"delay": 3.0},
    }.items():
        with proxied(server) as (proxy, through):

            def begin(proxy: ChaosProxy = proxy, behaviour: Any = behaviour) -> None:
                proxy.behave(**behaviour)
                if "refuse" in behaviour:
                    proxy.end_all("reset")

            def end(proxy: ChaosProxy = proxy) -> None:
                proxy.behave()
                for connection in proxy.connections:
                    if connection.faults:
                        connection.end("reset")

            yield name, under(through, begin, end)
    full = ChaosProxy(server.port, accept=False)
    nobody = Shared(server.through(full))
    try:
        yield "accepts nobody (no recovery: the next line's server)", under_only(nobody)
    finally:
        nobody.cache.close()
        full.close()


def under_only(one: Shared) -> Outcome:
    slowest, wrong = 0.0, 0
    for n in range(50):
        began = time.monotonic()
        wrong += not is_of(one.get(f"n{n}"), f"n{n}")
        slowest = max(slowest, time.monotonic() - began)
    return Outcome(50, wrong, slowest - DEADLINE, 0.0)


def hits_lost(postgres: PostgresServer, rounds: int = 10) -> tuple[int, int]:
    """(hits, those that the tier does not know): answers to flushes are cut, and the server is restarted."""
    with ChaosProxy(postgres.port) as proxy, shared(proxy.url()) as one:
        one.get("counted")
        assert one.cache._tier is not None
        one.cache._tier.core.drain(5_000_000_000)
        hits = 0
        for round_ in range(rounds):
            for _ in range(100):
                one.get("counted")
                hits += 1
            if round_ % 2 == 0:
                for connection in list(proxy.connections):
                    connection.behave(cut_after=0)
            if round_ == rounds // 2:
                postgres.restart("immediate")
            one.cache._flush_hits()
            proxy.behave()
            eventually(one.cache.confirm)
        eventually(lambda: one.cache._upkeep.flush() and not one.cache._upkeep._unsent)  # type: ignore[union-attr]
        rows = postgres.sql("SELECT hit_count FROM stillwarm.entries WHERE key = 'get:''counted'''")
        return hits, hits - int(rows[0][0] or 0)


# ------------------------------------------------------------------------------------------------------ cancellation


async def cancels(one: Shared, proxy: ChaosProxy, count: int, seed: int, together: int = 20) -> tuple[int, int, int]:
    """(calls that were cancelled or timed out, those that ended, wrong values) of `count` calls of the verbs."""
    rng = random.Random(seed)
    ended = cancelled = wrong = 0
    done = 0

    async def call(key: str) -> None:
        nonlocal ended, wrong, cancelled
        verb = rng.randrange(3)
        patience = rng.random() ** 2 * 0.05
        try:
            async with _limit(patience):
                if verb == 0:
                    await one.cache.aset(key, value_of(key))
                value = await one.cache.aget(key)
                if verb == 2:
                    many = await one.cache.aget_many([key, f"{key}x"])
                    value = many.get(key)
                    other = many.get(f"{key}x")
                    wrong += not (other is None or is_of(other, f"{key}x"))
        except (TimeoutError, asyncio.TimeoutError):
            cancelled += 1
            return
        ended += 1
        wrong += not (value is None or is_of(value, key))

    async def worker() -> None:
        nonlocal done
        while done < count:
            done += 1
            if done % 500 == 0:
                proxy.behave(chunk=rng.choice([1, 40, 65536]), delay=rng.choice([0.0, 0.0, 0.001]))
            if done % 50 == 0:
                forget(one.cache)
            task = asyncio.ensure_future(call(f"v{rng.randrange(30)}"))
            if rng.random() < 0.3:
                asyncio.get_running_loop().call_later(rng.random() ** 2 * 0.01, task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                cancelled_here(task)

    def cancelled_here(task: asyncio.Task[None]) -> None:
        nonlocal cancelled
        if not task.cancelled():
            raise asyncio.CancelledError
        cancelled += 1

    await asyncio.gather(*(worker() for _ in range(together)))
    proxy.behave()
    return cancelled, ended, wrong


@contextlib.asynccontextmanager
async def _limit(seconds: float) -> Any:
    """asyncio.timeout of Python 3.11."""
    task = asyncio.current_task()
    assert task is not None
    late: list[bool] = []

    def cancel() -> None:
        late.append(True)
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, cancel)
    try:
        yield
    except asyncio.CancelledError:
        if late:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


async def naive_cancels(port: int, count: int, seed: int) -> int:
    """Wrong values of a client that goes on with a connection whose caller was cancelled: the control."""
    rng = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wrong = 0
    for n in range(count):
        writer.write(f"{n}\n".encode())
        try:
            answer = await asyncio.wait_for(reader.readline(), rng.random() * 0.004)
        except (TimeoutError, asyncio.TimeoutError):
            continue
        wrong += answer != f"{n}\n".encode()
    writer.close()
    return wrong


async def naive_run(count: int, seed: int) -> int:
    """Against a server that answers with what it was asked, a little later."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the loop
            while line := await reader.readline():
                await asyncio.sleep(0.001)
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        return await naive_cancels(server.sockets[0].getsockname()[1], count, seed)


def cancels_run(server: Served, count: int, seed: int) -> tuple[int, int, int]:
    with proxied(server) as (proxy, one):
        return asyncio.run(cancels(one, proxy, count, seed))
