"""Two gunicorn workers, as an app is deployed: they share answers, and an invalidation in one reaches the other.

Thread rule: one client. The kernel says which worker answers: a test asks until it was the one it wants.
Refuses to know: how that works in one process (`test_web_tier`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stillwarm._servers import free_port
from tiers import eventually

_PATHS = [str(Path(__file__).parent), *sys.path]


class Seen(NamedTuple):
    worker: int
    label: str
    body: bytes


class Gunicorn:
    """Two workers on one loopback port."""

    def __init__(self, url: str | None) -> None:
        self.port = free_port()
        given = {} if url is None else {"STILLWARM_URL": url}
        address = f"127.0.0.1:{self.port}"
        options = f"--config python:gunicorn_app --workers 2 --bind {address} --log-level error".split()
        self._program = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "gunicorn_app:made()"],
            env={**os.environ, **given, "PYTHONPATH": os.pathsep.join(_PATHS)},
            cwd=Path(__file__).parent,
        )

    def ask(self, path: str = "/page", method: str = "GET") -> Seen:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers={"Host": "app.test"})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return Seen(int(answer.headers["X-Worker"]), answer.headers.get("X-Cache", ""), body)
        finally:
            connection.close()

    def wait(self) -> None:
        def up() -> bool:
            assert self._program.poll() is None, "gunicorn ended"
            try:
                self.ask()
            except OSError:
                return False
            return True

        eventually(up, "gunicorn does not answer")

    def of(self, fits: Callable[[Seen], bool], what: str, path: str = "/page") -> Seen:
        """The first answer that fits."""
        found: list[Seen] = []

        def asked() -> bool:
            found.append(self.ask(path))
            return fits(found[-1])

        eventually(asked, f"{what}; the last answers: {found[-3:]}")
        return found[-1]

    def close(self) -> None:
        self._program.terminate()
        try:
            self._program.wait(30)
        finally:
            self._program.kill()
            self._program.wait()


@pytest.fixture
def gunicorn() -> Iterator[Callable[[str | None], Gunicorn]]:
    made: list[Gunicorn] = []

    def make(url: str | None) -> Gunicorn:
        made.append(Gunicorn(url))
        made[-1].wait()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> Any:
    name = "warm_redis" if request.param == "redis" else "warm_postgres"
    return request.getfixturevalue(name).new_database()


@pytest.mark.servers
def test_web_workers_share_answers_and_invalidations(gunicorn: Any, url: str) -> None:
    site = gunicorn(url)
    one = site.of(lambda seen: seen.label == "HIT", "the page is stored")
    written = site.of(lambda seen: seen.worker == one.worker, "it is written", "/written")
    assert b"true" in written.body
    two = site.of(lambda seen: seen.worker != one.worker, "the other worker answers")
    assert (two.label, two.body) == ("HIT", one.body)  # it has loaded nothing

    writer = site.ask("/write", "POST").worker
    again = site.of(lambda seen: seen.worker == writer, "the writer answers")
    assert again.body != one.body  # at once
    other = site.of(lambda seen: seen.worker != writer and seen.body != one.body, "the other worker hears of it")
    assert other.label in ("HIT", "MISS")
    # From then on both have the new one, whoever made it.
    last = site.of(lambda seen: seen.label == "HIT" and seen.worker != other.worker, "the first worker hits")
    assert last.body != one.body


@pytest.mark.servers
def test_web_workers_without_a_tier_share_nothing(gunicorn: Any) -> None:
    """The control: what the tier is for."""
    site = gunicorn(None)
    one = site.of(lambda seen: seen.label == "HIT", "the page is stored")
    two = site.of(lambda seen: seen.worker != one.worker, "the other worker answers")
    assert two.body != one.body
    writer = site.ask("/write", "POST").worker
    other = site.of(lambda seen: seen.worker != writer, "the other worker answers")
    assert other.body in (one.body, two.body)  # from before the write
