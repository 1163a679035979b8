"""What compression dictionaries gain and cost: ratio and microseconds with and without, on the demos' own values.

    python benchmarks/remote/dictionaries.py [--quick]

The values are those that the dashboard demo (answers of its Flask app) and the discovery demo (scores, and products as
its API describes them) put into a PostgreSQL tier, read back from there as payloads. Two thirds of them, in random
order, are given to a tier's codec until it has trained; the others, which it has not seen, are sealed and opened. Sizes
leave headers aside (25 bytes and more, the same on both sides); times are those of the whole envelope, its checksum
included: medians of rounds in which the two sides take turns. Without: zstd above 1 KB, as it is without a dictionary;
"zstd alone" shows what it would do to smaller ones.

Thread rule: one thread. Refuses to know: how dictionaries are kept and shared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from stillwarm import Cache, _core
from stillwarm._servers import PostgresServer
from stillwarm.demo.catalogue import CATEGORIES, DOMAINS, Catalogue
from stillwarm.demo.dashboard.app import create_app
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.discovery.scoring import Product, Score, score_of
from stillwarm.demo.upstream import SearchServer
from work import QUESTIONS

NAMESPACE, KEY = "bench", "values\nkey"
DURATIONS = (3_600_000_000_000, 0, 0, 0)
MOST = 64 << 20
GOAL, SMALL = 2.0, 2_000  # times smaller than without a dictionary; bytes


def payloads(cache: Cache, belongs: Callable[[str, str], bool]) -> list[bytes]:
    """What the tier has of the keys and types that belong."""
    cache._tier.core.drain(10_000_000_000)  # type: ignore[union-attr]
    found = []
    rows = cache.query(
        "SELECT key, type, encode(payload, 'hex') FROM stillwarm.entries WHERE namespace = $1 ORDER BY key",
        [cache.namespace],
        timeout=60,
    )
    for key, type_name, text in rows:
        if belongs(str(key), str(type_name)):
            sealed_as = f"{type_name}\n{key}"
            status, *_, body = _core.open_envelope(cache.namespace, sealed_as, bytes.fromhex(str(text)), MOST)
            assert status == 0
            found.append(body)
    return found


def dashboard(url: str, count: int) -> Iterator[tuple[str, list[bytes]]]:
    server = SearchServer(scale=0).start()
    with ExitStack() as stack, Cache(url, namespace="dashboard", timeout="10s", private=True) as cache:
        stack.callback(server.kill)
        client = create_app(Search(server.url), cache, "no-secret-of-anybodys").test_client()
        names = [server.documents.name_of(n).split() for n in range(300)]
        asked = {" ".join(part) for a, b, c in names for part in ((a,), (b,), (a, b), (b, c), (a, c), (a, b, c))}
        for n in range(300):
            client.get(f"/api/products/{n}")
        for words in random.Random(1).sample(sorted(asked), min(count, len(asked))):
            client.get("/api/search", query_string={"q": words})
        for name in sorted(cache.stats().types):
            found = payloads(cache, lambda _, type_name, name=name: type_name == name)
            if len(found) >= 100:
                yield f"dashboard, {name}", found


def scores(catalogue: Catalogue) -> list[Score]:
    made = []
    for domain in DOMAINS:
        for category in CATEGORIES:
            for one in catalogue.products(domain, catalogue.bestsellers(domain, category)):
                history = tuple(one["bsr_history"])
                made.append(
                    score_of(
                        Product(one["asin"], one["title"], one["price"], one["bsr"], one["stats"]["avg90"], history)
                    )
                )
    return made


def discovery(url: str, count: int) -> Iterator[tuple[str, list[bytes]]]:
    catalogue = Catalogue()
    draw = random.Random(1)
    all_scores = scores(catalogue)
    places = [(domain, category) for domain in DOMAINS for category in CATEGORIES]
    all_products = [one for at in places for one in catalogue.products(at[0], catalogue.bestsellers(*at))]
    with Cache(url, namespace="discovery", timeout="10s", private=True, max_bytes="1GB") as cache:
        groups: dict[str, tuple[Any, list[Any], int]] = {
            "discovery, a score": (Score, all_scores, 1),
            "discovery, 8 scores": (list[Score], all_scores, 8),
            "discovery, 38 scores": (list[Score], all_scores, 38),
            "discovery, 380 scores": (list[Score], all_scores, 380),
            "discovery, a product": (dict[str, Any], all_products, 1),
            "discovery, 3 products": (list[dict[str, Any]], all_products, 3),
            "discovery, 15 products": (list[dict[str, Any]], all_products, 15),
            "discovery, 150 products": (list[dict[str, Any]], all_products, 150),
        }
        for name, (kind, source, size) in groups.items():
            wanted = min(count, len(source)) if size == 1 else min(count, 400, max(60, 20_000 // size))
            chosen = draw.sample(source, wanted) if size == 1 else [draw.sample(source, size) for _ in range(wanted)]
            kept = cache.cached(key=lambda n, name=name: f"{name}:{n}", ttl=600, decode_as=kind, jitter=0.0)
            load = kept(lambda n, chosen=chosen: chosen[n])
            for n in range(wanted):
                load(n)
            yield name, payloads(cache, lambda key, _, name=name: key.startswith(f"{name}:"))


def trained(values: list[bytes]) -> _core.Dictionaries:
    """A codec that was given the values, often enough to look whether a dictionary pays."""
    codec = _core.Dictionaries(1024)
    for body in values:
        seal(codec, body)
    study = codec.begin("values")
    if study is not None:
        study.run()
        codec.end(study, True, codec.doubts)
    return codec


def seal(codec: _core.Dictionaries, body: bytes) -> bytes:
    return codec.seal(NAMESPACE, "values", KEY, body, 1, False, DURATIONS, False)


def size(sealed: Callable[[bytes], bytes], values: list[bytes]) -> int:
    """Bytes that the values take, headers aside."""
    heads = sum(len(_core.seal(NAMESPACE, KEY, body, 1, False, DURATIONS, 0)) - len(body) for body in values)
    return sum(len(sealed(body)) for body in values) - heads


def microseconds(operations: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, float]:
    """Of one value, by operation: medians; the operations take turns."""
    seen: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(rounds):
        for name, operation in operations.items():
            start = time.perf_counter()
            operation()
            seen[name].append((time.perf_counter() - start) / count * 1e6)
    return {name: statistics.median(times) for name, times in seen.items()}


def row(name: str, values: list[bytes], rounds: int) -> tuple[str, str]:
    """A row of the table, and one of the goals': empty, where none is for values of this size."""
    draw = random.Random(7)
    draw.shuffle(values)
    most = len(values) * 2 // 3
    seen, held = values[:most], values[most : most + 300]
    # What a process would see in the long run: the core trains with 500 values and more, and with 100 different ones.
    codec = trained(seen * (1 + 600 // max(1, len(seen))))
    plain = lambda body: _core.seal(NAMESPACE, KEY, body, 1, False, DURATIONS, 1024)  # noqa: E731
    alone = lambda body: _core.seal(NAMESPACE, KEY, body, 1, False, DURATIONS, 1)  # noqa: E731
    with_one = lambda body: seal(codec, body)  # noqa: E731
    raw = sum(map(len, held))
    sizes = {side: size(made, held) for side, made in (("plain", plain), ("alone", alone), ("with", with_one))}
    stored = {"plain": [plain(body) for body in held], "with": [with_one(body) for body in held]}
    times = microseconds(
        {
            "seal plain": lambda: [plain(body) for body in held],
            "seal with": lambda: [with_one(body) for body in held],
            "open plain": lambda: [_core.open_envelope(NAMESPACE, KEY, one, MOST) for one in stored["plain"]],
            "open with": lambda: [
                _core.open_envelope(NAMESPACE, KEY, one, MOST, codec, "values") for one in stored["with"]
            ],
        },
        len(held),
        rounds,
    )
    used = codec.figures()["types"]["values"]["dictionary"] is not None
    bodies = [_core.open_envelope(NAMESPACE, KEY, one, MOST, codec, "values")[4] for one in stored["with"]]
    assert bodies == held
    times_smaller = sizes["plain"] / sizes["with"]
    goal = (
        f"| {name}, {raw / len(held) / 1000:.2f} KB with a dictionary | {raw / sizes['with']:.2f} x smaller | without "
        f"{raw / sizes['plain']:.2f} x | {times_smaller:.2f} x | >= {GOAL:g} x below 2 KB | "
        f"{'yes' if times_smaller >= GOAL else '**no**'} |"
        if raw / len(held) < SMALL
        else ""
    )
    shown = (
        f"| {name} | {raw / len(held) / 1000:.2f} | {raw / sizes['plain']:.2f} | {raw / sizes['alone']:.2f} | "
        f"{raw / sizes['with']:.2f} | {sizes['plain'] / sizes['with']:.2f} x{'' if used else ' (none pays)'} | "
        f"{times['seal plain']:.1f} / {times['seal with']:.1f} | {times['open plain']:.1f} / {times['open with']:.1f} |"
    )
    return shown, goal


def idle(rounds: int) -> str:
    """What it costs a value that has no dictionary."""
    body = b"x" * 200
    codec = _core.Dictionaries(1024)
    many = range(2000)
    times = microseconds(
        {
            "before": lambda: [_core.seal(NAMESPACE, KEY, body, 1, False, DURATIONS, 1024) for _ in many],
            "now": lambda: [codec.seal(NAMESPACE, "values", KEY, body, 1, False, DURATIONS, True) for _ in many],
            "sampled": lambda: [
                codec.seal(NAMESPACE, "values", KEY, body[:190] + b"%010d" % n, 1, False, DURATIONS, False)
                for n in many
            ],
        },
        len(many),
        rounds,
    )
    return (
        f"A value of 200 bytes without a dictionary: {times['before']:.2f} us to seal without this part, "
        f"{times['now']:.2f} with it, {times['sampled']:.2f} while its type is sampled."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, count = (3, 220) if quick else (25, 2640)
    goals: list[str] = []
    print("| values | KB | ratio without | zstd alone | with | with against without | us to seal | us to open |")
    print("|---|---|---|---|---|---|---|---|")
    with PostgresServer() as server:
        url = server.new_database()
        for source in (dashboard, discovery):
            for name, found in source(url, count):
                shown, goal = row(name, found, rounds)
                print(shown, flush=True)
                goals += [goal] * bool(goal)
    print("\n".join(["", QUESTIONS, *goals, ""]))
    print(idle(4 * rounds))


if __name__ == "__main__":
    main()
