"""What the PostgreSQL tier costs in the database: plans of hot statements, bytes per entry, dead rows, index growth.

    python benchmarks/remote/storage.py [--quick]

Plans are written by the server itself (auto_explain) while a cache is used, so they are those of the very statements
that run. Growth: 360,000 operations (60 % look-ups, 25 % sets, 10 % loads, 5 % invalidations) over 20,000 keys by 4
threads, with autovacuum as Debian sets it but for a nap of 5 s in place of 60, since the run takes minutes and no day;
then sizes beside those of indexes that are written anew.

Thread rule: starts 4 threads. Refuses to know: how the tier works.
"""

from __future__ import annotations

import argparse
import random
import re
import threading

from stillwarm import Cache
from stillwarm._servers import PostgresServer

EXPLAIN = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "off",
}


def plans(keys: int) -> str:
    """One plan of each hot statement, on a table with so many keys."""
    with PostgresServer(settings=EXPLAIN) as server:
        with Cache(server.new_database(), ttl=600, timeout="10s", compress_above=0) as cache:
            cache.migrate()
            cache.set_many({f"k{i}": "x" * 200 for i in range(keys)})
            cache.query("ANALYZE stillwarm.entries")
            for i in range(10):
                cache._tier.core.lost()  # type: ignore[union-attr]
                cache.get(f"k{i}")
            cache.invalidate(tag="one")
            cache.get_many([f"k{i}" for i in range(20, 30)])
            cache.set("k1", "y", tags=["one"])
            cache.delete("k2")
            cache._upkeep.flush()  # type: ignore[union-attr]
        text = server.log
    seen: dict[str, str] = {}
    for block in re.split(r"\n(?=\d{4}-\d\d-\d\d )", text):
        found = re.search(r"Query Text: (.*)\n", block)
        if found and "stillwarm" in block and "plan:" in block:
            kind = kind_of(found[1])
            if kind:
                seen[kind] = "\n".join(line.rstrip() for line in block.splitlines() if "Query Text" not in line)[:3500]
    return "\n\n".join(f"### {kind}\n\n```\n{plan}\n```" for kind, plan in sorted(seen.items()))


def kind_of(text: str) -> str:
    if text.startswith("SELECT e.payload"):
        return "look-up of one key"
    if text.startswith("SELECT k.n"):
        return "look-up of many keys"
    if "INSERT INTO" in text and ".entries AS e" in text:
        return "store"
    if "pg_xact_status" in text:
        return "poll"
    if "flushes" in text:
        return "hit counts"
    return "invalidation" if "told AS" in text else ""


def growth(operations: int, keys: int) -> str:
    settings = {"autovacuum_naptime": "5s"}
    with (
        PostgresServer(settings=settings) as server,
        Cache(server.new_database(), ttl=600, timeout="10s", max_entries=1000, compress_above=0) as cache,
    ):
        cache.migrate()

        @cache.cached(key="load:{i}", tags=lambda i: [f"t{i % 100}"])
        def load(i: int) -> str:
            return "x" * 300

        cache.set_many({f"k{i}": "x" * 300 for i in range(keys)})
        for i in range(keys // 4):
            load(i)
        first = per_entry(cache)
        worst = 0.0

        def work(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(operations // 4):
                kind, i = draw.random(), draw.randrange(keys)
                if kind < 0.6:
                    cache.get(f"k{i}")
                elif kind < 0.85:
                    cache.set(f"k{i}", "y" * draw.randrange(200, 400))
                elif kind < 0.95:
                    load(i % (keys // 4))
                else:
                    cache.invalidate(key=f"k{i}") if kind < 0.98 else cache.invalidate(tag=f"t{i % 100}")

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            workers[0].join(2)
            worst = max(worst, dead_share(cache))
        for worker in workers:
            worker.join()
        cache._tier.core.drain(10_000_000_000)  # type: ignore[union-attr]
        end = dead_share(cache)
        last = per_entry(cache)
        cache.query("REINDEX TABLE stillwarm.entries", timeout=60)
        anew = per_entry(cache)
        return (
            f"| operations | {operations:,} over {keys:,} keys |\n"
            f"| dead rows in entries | worst seen {worst:.1%}, at the end {end:.1%} (limit 20 %) |\n"
            f"| bytes per entry, table + indexes | {first[0]:.0f} + {first[1]:.0f} at first, {last[0]:.0f} + "
            f"{last[1]:.0f} at the end |\n"
            f"| growth of the indexes | {last[1] / first[1]:.2f} x (limit 1.5); against written anew "
            f"{last[1] / anew[1]:.2f} x |"
        )


def dead_share(cache: Cache) -> float:
    row = cache.query(
        "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE schemaname = 'stillwarm' AND relname = 'entries'"
    )[0]
    dead, live = int(row[0] or 0), int(row[1] or 0)
    return dead / max(1, dead + live)


def per_entry(cache: Cache) -> tuple[float, float]:
    """Bytes of the table and of its indexes per row."""
    row = cache.query(
        "SELECT pg_table_size('stillwarm.entries'), pg_indexes_size('stillwarm.entries'), count(*) "
        "FROM stillwarm.entries"
    )[0]
    table, indexes, rows = (int(figure or 0) for figure in row)
    return table / max(1, rows), indexes / max(1, rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print("| what | seen |\n|---|---|")
    print(growth(4_000 if quick else 360_000, 1_000 if quick else 20_000))
    print("\n## Plans, on a table of 20,000 keys\n")
    print(plans(1_000 if quick else 20_000))


if __name__ == "__main__":
    main()
