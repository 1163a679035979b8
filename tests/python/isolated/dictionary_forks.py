"""A process with a dictionary forks: parent and child read and write with it, and a study that ran is the parent's.

    dictionary_forks.py URL NAMESPACE

Thread rule: the main thread forks.
Refuses to know: who runs it.
"""

from __future__ import annotations

import os
import sys

from rows_alike import ENOUGH, current, row, trained
from stillwarm import Cache


def main(url: str, namespace: str) -> None:
    options = {"namespace": namespace, "timeout": "20s", "connect_timeout": "20s", "purge_every": None, "jitter": 0.0}
    cache = Cache(url, **options)  # type: ignore[arg-type]
    number = trained(cache)
    cache.set("of_parent", row(1), ttl=100)
    tier = cache._tier
    assert tier is not None
    tier.dictionary_work.busy.acquire()  # as if the pool were at it, in the middle of a study of another type
    other = cache.cached(ttl=100, name="f")(row)
    for n in range(ENOUGH):
        other(n)
    study = tier.dictionaries.begin("default")
    assert study is not None
    print(end="", flush=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fresh = Cache(url, **options)  # type: ignore[arg-type]
            assert cache.get("of_parent") == row(1)
            print("child:read", flush=True)
            assert current(cache) == number
            cache.set("of_child", row(2), ttl=100)
            assert fresh.get("of_child") == row(2)
            print("child:wrote", flush=True)
            assert "default" in tier.dictionaries.due()
            assert not tier.dictionary_work.busy.locked()
            print("child:studies", flush=True)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get("of_child") == row(2)
    print("parent:read", flush=True)
    study.run()
    tier.dictionaries.end(study, False, tier.dictionaries.doubts)
    cache.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
