"""A second process of the dashboard's app: the same Redis and search server, and a memory of its own that is cold.

The process reads one line of JSON, says its URL, and ends with its standard input.

Thread rule: a Second is made, asked and closed by one thread.
Refuses to know: what is asked of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import stillwarm
from stillwarm.demo.client import Client

_PACKAGE: Final = Path(stillwarm.__file__).resolve().parents[1]
NAMESPACE: Final = "dashboard_demo"


class Second:
    """The process, and a client of it that calls it by the first one's name, as a load balancer would.

    Args:
        known_as: the URL of the first process.
        settings: of the app: url, search, ttl, token.

    Raises:
        OSError: it did not start.
    """

    def __init__(self, known_as: str, **settings: Any) -> None:
        paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        # What it is told has passwords, which arguments would show to everyone. Ctrl-C is not for it.
        self._program = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        try:
            self._program.stdin.write(json.dumps(settings) + "\n")
            self._program.stdin.flush()
            self.url = self._program.stdout.readline().strip()
        except BaseException:
            self._end()
            raise
        if not self.url:
            self._end()
            raise OSError("the second process of the demo did not start")
        self.client = Client(self.url, host=urlsplit(known_as).netloc)

    def close(self) -> None:
        self.client.close()
        self._end()

    def _end(self) -> None:
        for stream in (self._program.stdin, self._program.stdout):
            if stream is not None:
                stream.close()
        try:
            self._program.wait(10)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()


def main() -> None:
    """The process."""
    import logging

    from stillwarm import Cache
    from stillwarm.demo.dashboard.app import create_app
    from stillwarm.demo.dashboard.search import Search
    from stillwarm.demo.serving import AppServer

    settings = json.loads(sys.stdin.readline())
    logging.getLogger("stillwarm").addHandler(logging.NullHandler())  # the first process has the same to say
    with Cache(settings["url"], namespace=NAMESPACE) as cache:
        cache.define("dashboard", ttl=settings["ttl"])
        server = AppServer(create_app(Search(settings["search"]), cache, settings["token"]))
        print(server.url, flush=True)
        sys.stdin.read()  # until the first process closes it, or ends
        server.stop()


__all__ = ["NAMESPACE", "Second"]
