"""Another process with a cache of the same namespace: `Child` in the test, and the program that it runs.

    serve: answers lines of JSON, [verb, args, kwargs]; the verb "f" is a cached function that counts its loads
    load:  16 threads ask for 8 keys once they are told to; hold: a load that never ends

Thread rule: a Child belongs to its test's thread.
Refuses to know: what is tested.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiers import Ground

PATIENCE = 60.0


class Child:
    """The process; `with` ends it."""

    def __init__(self, ground: Ground, mode: str = "serve", **options: Any) -> None:
        import stillwarm

        package = os.path.dirname(os.path.dirname(os.path.abspath(stillwarm.__file__)))
        given = {"timeout": "20s", "connect_timeout": "20s", "purge_every": None, "jitter": 0.0, **options}
        self._program = subprocess.Popen(
            [sys.executable, __file__, mode, str(ground.url), ground.namespace, json.dumps(given)],
            env=dict(os.environ, PYTHONPATH=package, PYTHONFAULTHANDLER="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self._lines.put(line.strip())
        self._lines.put("")

    def say(self, text: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(text + "\n")
        self._program.stdin.flush()

    def heard(self, word: str) -> None:
        line = self._lines.get(timeout=PATIENCE)
        assert line == word, f"the child said {line!r} instead of {word!r}"

    def answer(self) -> Any:
        line = self._lines.get(timeout=PATIENCE)
        assert line, "the child ended"
        return json.loads(line)

    def do(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        self.say(json.dumps([verb, args, kwargs]))
        return self.answer()

    def kill(self) -> None:
        self._program.kill()
        self._program.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._thread.join()
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.stdout.close()


def _main(mode: str, url: str, namespace: str, options: str) -> None:
    from stillwarm import Cache

    cache = Cache(url, namespace=namespace, **json.loads(options))
    calls: dict[str, int] = {}
    lock = threading.Lock()

    def say(what: Any) -> None:
        print(what if isinstance(what, str) else json.dumps(what), flush=True)

    if mode == "serve":

        @cache.cached(ttl=100, name="f", tags=lambda key: [f"tag:{key}"])
        def f(key: str) -> Any:
            calls[key] = calls.get(key, 0) + 1
            return f"child:{key}#{calls[key]}"

        for line in sys.stdin:
            verb, args, kwargs = json.loads(line)
            done = f(*args) if verb == "f" else getattr(cache, verb)(*args, **kwargs)
            say(json.dumps(done))
        return

    @cache.cached(ttl=100, name="f", scope="fleet")
    def loaded(key: str) -> str:
        if mode == "hold":
            say("loading")
            threading.Event().wait()
        with lock:
            calls[key] = calls.get(key, 0) + 1
        return f"{key} of {os.getpid()}"

    if mode == "hold":
        loaded("held")
    values: dict[str, set[str]] = {}

    def work() -> None:
        for key in map(str, range(8)):
            value = loaded(key)
            with lock:
                values.setdefault(key, set()).add(value)

    say("ready")
    assert sys.stdin.readline().strip() == "go"
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say({"values": {key: sorted(of) for key, of in values.items()}, "calls": calls})
    sys.stdin.readline()


if __name__ == "__main__":
    _main(*sys.argv[1:])
