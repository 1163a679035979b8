"""The pytest plugin's `warm_redis`: a server of a user's own tests, one a process, and what is said without one.

Thread rule: one thread; the suites of users run in processes of their own.
Refuses to know: how a server is started (test_servers), and the tier.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stillwarm.testing
from stillwarm import Cache, _keeper
from stillwarm._redis_server import RedisServer
from test_testing_plugin import PLUGIN
from tiers import eventually

pytestmark = pytest.mark.servers

SUITE = """
    import os, pytest, time
    from stillwarm import Cache
    from stillwarm.testing import RedisServer

    @pytest.fixture
    def cache(warm_redis: RedisServer):
        with Cache(warm_redis.new_database(), namespace="app", ttl=60, timeout="20s", connect_timeout="20s") as cache:
            yield cache

    @pytest.mark.parametrize("turn", range(4))
    def test_it(warm_redis, cache, turn):
        assert isinstance(warm_redis, RedisServer)
        assert cache.get("k") is None  # each database is a new one
        cache.set("k", turn)
        cache.check()
        assert warm_redis.command("PING") == "PONG"
        with open("folders", "a") as file:
            print(warm_redis.folder, os.getpid(), file=file, flush=True)
        if os.path.exists("stay"):
            time.sleep(60)
"""


def traces(folder: str) -> list[object]:
    """What is left of a server."""
    return [*_keeper.processes(folder, Path(folder).name), *([folder] if os.path.exists(folder) else [])]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one_process", "xdist"])
def test_testing_redis_is_one_server_a_process_and_leaves_nothing(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess(*PLUGIN, *workers).assert_outcomes(passed=4)
    runs = [line.split() for line in (pytester.path / "folders").read_text().splitlines()]
    assert len(runs) == 4
    assert len({folder for folder, _ in runs}) == len({pid for _, pid in runs}) <= 2
    for folder, _ in runs:
        assert traces(folder) == []


def test_testing_redis_leaves_nothing_when_pytest_is_terminated(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    (pytester.path / "stay").touch()
    run = pytester.popen([sys.executable, "-m", "pytest", "-q", *PLUGIN], stdin=subprocess.DEVNULL)
    folders = pytester.path / "folders"
    eventually(lambda: folders.exists() and "\n" in folders.read_text(), "the test did not begin")
    folder = folders.read_text().split()[0]
    assert traces(folder)
    run.send_signal(signal.SIGTERM)
    run.communicate()
    eventually(lambda: not traces(folder), f"{traces(folder)} left")


@pytest.mark.parametrize("variable", ["REDIS_SERVER", "PATH"])
def test_testing_redis_names_the_package_that_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv(variable, str(pytester.path / "nothing"))
    pytester.makepyfile("def test_it(warm_redis): pass\ndef test_that_asks_for_none(): pass")
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*warm_redis: no Redis server (*): install the Debian package redis-server*"])


def test_testing_redis_takes_the_program_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stillwarm._redis_server import redis_program

    own = tmp_path / "valkey-server"
    own.symlink_to(redis_program().resolve())
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_program() == own  # Valkey, where there is no Redis
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("REDIS_SERVER", str(own))
    assert redis_program() == own


def test_testing_redis_is_not_loaded_where_nobody_asks() -> None:
    script = "import sys, stillwarm.testing as t; assert 'stillwarm._redis_server' not in sys.modules; t.RedisServer"
    environment = {**os.environ, "PYTHONPATH": str(Path(stillwarm.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert "RedisServer" in stillwarm.testing.__all__
    assert stillwarm.testing.RedisServer is RedisServer


def test_testing_redis_server_shows_what_an_app_does_without_it() -> None:
    """As the page on testing tells it."""
    with stillwarm.testing.RedisServer() as server:
        with Cache(server.new_database(), ttl=60, purge_every=None) as cache:

            def is_set() -> bool:
                errors = cache.stats().remote_errors
                cache.set("k", 1)
                return cache.stats().remote_errors == errors  # a busy machine may take longer than it has

            eventually(is_set)
            for hurt, mend in ((server.freeze, server.thaw), (server.kill, server.start)):
                hurt()
                assert cache.get("k") == 1
                assert cache.get_or_set("other", lambda: 2) == 2
                mend()
                eventually(lambda: server.command("PING") == "PONG")
                cache.delete("other")
    assert not server.running
