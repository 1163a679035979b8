#!/usr/bin/env python3
"""Uses every tier of the stillwarm that is installed, and fails where one does not work: for wheels, where they run.

`--order stillwarm,psycopg,psycopg2,ssl` says what is imported, and in which order; `--postgres URL`, `--redis URL`
name servers to use, `--tls URL` the same PostgreSQL by TLS, with a `sslrootcert` to verify it by. Without a server the
remote tiers are only seen to be there and to miss it. `--readme FILE` runs the first example in it.

Thread rule: a program of one thread, and what stillwarm starts.
Refuses to know: pytest and the checkout; it runs where there is neither.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PATIENCE = 30.0  # s, on a busy machine
OURS = re.compile(r"/lib(?:pq|hiredis|zstd|ssl|crypto)[-.][^/]*$")


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Prints what was done and how long it took."""
    start = time.perf_counter()
    yield
    print(f"  {name}: {(time.perf_counter() - start) * 1000:.0f} ms")


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def row(number: int) -> dict[str, object]:
    """Some 150 bytes, no two alike: what a dictionary is good for."""
    draw = random.Random(number)
    return {
        "asin": f"B0{draw.randrange(10**8):08}",
        "title": f"Bottle number {draw.randrange(9999)}",
        "category": "Home & Kitchen",
        "price": draw.randrange(9999) / 100,
        "fulfilled_by": "warehouse",
        "reviews": draw.randrange(999),
    }


def memory() -> None:
    from stillwarm import Cache

    cache = Cache()
    loads: list[str] = []

    @cache.cached(ttl="5m", tags=lambda asin: [f"asin:{asin}"])
    def score(asin: str) -> str:
        loads.append(asin)
        return asin.lower()

    assert [score("B07"), score("B07"), loads] == ["b07", "b07", ["B07"]]
    cache.invalidate(tag="asin:B07")
    assert [score("B07"), loads] == ["b07", ["B07", "B07"]]


def remote(url: str) -> None:
    """Two caches that know each other through the server alone: values, tags, a lease, compression, a dictionary."""
    from stillwarm import Cache

    options = {"namespace": "wheel", "timeout": "20s", "connect_timeout": "20s", "purge_every": None}
    with Cache(url, **options) as here, Cache(url, **options) as there:
        here.check()
        long = "warm " * 20_000
        here.set("long", long, ttl="10m")
        assert there.get("long") == long
        assert here.stats().tier["compression"]["ratio"] > 20

        @here.cached(ttl="10m", key="price:{asin}", tags=lambda asin: [f"asin:{asin}"], scope="fleet")
        def price(asin: str) -> dict[str, object]:
            return {"asin": asin, "cents": random.random()}

        first = price("B07")
        assert price("B07") == first
        there.invalidate(tag="asin:B07")
        eventually(lambda: price("B07") != first, "an invalidation of another cache never came")

        here.set_many({f"row{number}": row(number) for number in range(600)}, ttl="10m")
        figures = lambda: here.stats().tier["compression"]["types"].get("direct", {})  # noqa: E731
        eventually(lambda: figures().get("dictionary"), "no dictionary was trained")
        here.set("small", row(10_000), ttl="10m")
        assert here.stats().tier["compression"]["with_dictionary"] >= 1
        assert there.get("small") == row(10_000)


def absent() -> None:
    """The remote tiers are in this build, reach nobody at this address, and say so."""
    from stillwarm import Cache, StillwarmError

    with socket.socket() as closed:  # bound and not listening: refuses
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for url in (f"postgresql://nobody@127.0.0.1:{port}/none", f"redis://127.0.0.1:{port}/0"):
            with Cache(url, purge_every=None) as cache:
                cache.set("k", 1, ttl=10)
                assert cache.get("k") == 1
                try:
                    cache.check()
                except StillwarmError:
                    continue
            raise AssertionError(f"{url}: check() found a server where none is")


def encrypted(url: str) -> None:
    """stillwarm, psycopg, psycopg2 and Python's own ssl each speak TLS to one server, in one process, and again."""
    from stillwarm import Cache

    for _ in range(2):
        with Cache(url, namespace="tls", timeout="20s", connect_timeout="20s", purge_every=None) as cache:
            cache.set("k", "warm", ttl=100)
            cache.check()
            for name in ("psycopg", "psycopg2"):
                if name not in sys.modules:
                    continue
                connection = sys.modules[name].connect(url)
                cursor = connection.cursor()
                cursor.execute(
                    "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                    " WHERE application_name = 'stillwarm' OR pid = pg_backend_pid()"
                )
                safe, all_of_them = cursor.fetchone()
                assert safe == all_of_them >= 2, (name, safe, all_of_them)
                connection.close()
        if "ssl" in sys.modules:
            spoken = by_python(url)
            assert spoken.startswith("TLSv1."), spoken


def by_python(url: str) -> str:
    """The protocol that Python's ssl and the PostgreSQL of this URL agree upon."""
    import ssl

    parts = urlsplit(url)
    trusted = ssl.create_default_context(cafile=parse_qs(parts.query)["sslrootcert"][0])
    host = parts.hostname or ""
    with socket.create_connection((host, parts.port), 20) as plain:
        plain.sendall(struct.pack("!ii", 8, 80877103))
        assert plain.recv(1) == b"S"
        with trusted.wrap_socket(plain, server_hostname=host) as safe:
            return safe.version() or ""


def system_roots(url: str) -> str:
    """What `sslrootcert=system` does: libpq knows it from version 16 on."""
    from stillwarm import Cache, StillwarmError

    asked = re.sub(r"sslrootcert=[^&]*", "sslrootcert=system", url)
    with Cache(asked, namespace="tls", timeout="20s", connect_timeout="20s", purge_every=None) as cache:
        try:
            cache.check()
        except StillwarmError as error:
            return str(error).strip().split("\n")[0]
    return "accepted"


def mapped() -> list[Path]:
    """The shared libraries of this process that may be there more than once."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split(maxsplit=5)[5]) for line in lines if OURS.search(line)})


def carried() -> None:
    """Whatever of this is stillwarm's is the wheel's own, not the system's."""
    import stillwarm

    home = Path(stillwarm.__file__).parents[1]
    for path in mapped():
        print(f"    {path}")
    ours = [path for path in mapped() if path.parent == home / "stillwarm.libs"]
    for name in ("libpq-", "libhiredis-", "libzstd-", "libssl-", "libcrypto-"):
        assert any(path.name.startswith(name) for path in ours), f"{name} is not the wheel's: {mapped()}"
    for path in ours:
        if path.name.startswith("libpq-"):
            print(f"    libpq of the wheel: {ctypes.CDLL(str(path)).PQlibVersion()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--order", "--postgres", "--redis", "--tls", "--readme"):
        parser.add_argument(name)
    asked = parser.parse_args()
    for name in (asked.order or "stillwarm").split(","):
        with step(f"import {name}"):
            importlib.import_module(name)
    import stillwarm

    print(f"  stillwarm {stillwarm.__version__} on Python {sys.version.split()[0]}, {stillwarm.__file__}")
    with step("memory"):
        memory()
    if asked.readme:
        with step("the README's first example"):
            example = re.search(r"```python\n(.*?)```", Path(asked.readme).read_text(), re.DOTALL)
            assert example is not None
            exec(compile(example[1], asked.readme, "exec"), {})
    if importlib.util.find_spec("msgspec"):
        with step("the remote tiers without servers"):
            absent()
    else:
        print("  the remote tiers are not asked for anything: they need msgspec, which is not installed")
    for name, url in (("PostgreSQL", asked.postgres), ("Redis", asked.redis)):
        if url:
            with step(name):
                remote(url)
    if asked.tls:
        with step("TLS by all"):
            encrypted(asked.tls)
        print(f"  sslrootcert=system: {system_roots(asked.tls)}")
    carried()


if __name__ == "__main__":
    main()
