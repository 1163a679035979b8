"""Compression dictionaries between processes: two that share them, a forked child, a tier that goes away.

Thread rule: each test's thread; the other process is a Child's or a script's.
Refuses to know: dictionaries by themselves (test_dictionaries).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fleet_child import Child
from rows_alike import ENOUGH, current, figures, has_dictionary, row, settled, stored, trained
from stillwarm import Cache, _dictionaries
from stillwarm._servers import PostgresServer
from tiers import Ground, eventually

SCRIPT = Path(__file__).parent / "isolated" / "dictionary_forks.py"


def test_dictionaries_of_one_process_are_read_by_another(ground: Ground) -> None:
    cache = ground.cache()
    trained(cache)
    cache.set_many({f"k{n}": row(n) for n in range(10)}, ttl=100)
    assert has_dictionary(stored(ground, "k0"))
    with Child(ground) as child:
        assert child.do("get_many", [f"k{n}" for n in range(10)]) == {f"k{n}": row(n) for n in range(10)}


def test_dictionaries_of_another_process_are_read_here_and_used(ground: Ground) -> None:
    cache = ground.cache()
    with Child(ground) as child:
        child.do("set_many", {f"c{n}": row(n) for n in range(ENOUGH)}, ttl=100)

        def written_with() -> bool:
            child.do("set", "k", row(1), ttl=100)
            return has_dictionary(stored(ground, "k"))

        eventually(written_with, "the child never had a dictionary")
        assert cache.get("k") == row(1)
        child.kill()
    cache.set_many({f"h{n}": row(9_000 + n) for n in range(40)}, ttl=100)
    settled(cache)
    assert current(cache), "after a few values"
    assert figures(cache)["trained"] == 0, "and without training"
    cache.set("l", row(2), ttl=100)
    assert has_dictionary(stored(ground, "l"))


def test_dictionaries_of_a_parent_are_its_childs(ground: Ground) -> None:
    import stillwarm

    package = os.path.dirname(os.path.dirname(os.path.abspath(stillwarm.__file__)))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(ground.url), ground.namespace],
        env=dict(os.environ, PYTHONPATH=f"{package}{os.pathsep}{SCRIPT.parent.parent}", PYTHONFAULTHANDLER="1"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["child:read", "child:wrote", "child:studies", "parent:read"]


def test_dictionaries_wait_for_a_tier_that_is_away(private_postgres: PostgresServer) -> None:
    ground = Ground(private_postgres.new_database(), timeout="5s", connect_timeout="2s")
    try:
        cache = ground.cache()
        cache.migrate()
        tier = cache._tier
        assert tier is not None
        with tier.dictionary_work.busy:  # until the server is down
            cache.set_many({f"k{n}": row(n) for n in range(ENOUGH)}, ttl=100)
            private_postgres.kill()
        _dictionaries.run(tier)
        assert not current(cache), "nothing is used that could not be published"
        assert tier.dictionaries.due() == ["direct"], "the sample is kept for the next time"
        private_postgres.start()
        eventually(lambda: _is_back(cache, ground), "the server did not come back")
        settled(cache)
        assert current(cache)
    finally:
        ground.close()


def _is_back(cache: Cache, ground: Ground) -> bool:
    cache.set("k", row(1), ttl=100)
    return bool(ground.rows("key", "key = 'k'"))
