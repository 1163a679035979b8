"""Nothing is left of a private server: neither after its end nor after its owner's, however that ends.

Thread rule: a server that is hurt belongs to one test.
Refuses to know: what servers do while they live.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillwarm.testing
from leftovers import eventually, segment_of, segments, traces
from stillwarm import _servers
from stillwarm._servers import Keeper, PostgresServer, ServerError

pytestmark = pytest.mark.servers
INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="stillwarm"))
PLUGIN = () if INSTALLED else ("-p", "stillwarm.testing")
PACKAGE = str(Path(_servers.__file__).parents[1])


# ------------------------------------------------------------------------------------------------- what is left of it


def test_servers_postgres_closed_leaves_nothing(postgres_template: Path) -> None:
    server = PostgresServer(template=postgres_template)
    segment = segment_of(server)
    server.close()
    assert traces(str(server.socket)) == []
    assert segment not in segments()
    server.close()


def test_servers_postgres_that_cannot_start_says_why_and_leaves_nothing(
    postgres_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    plain = _servers.make_folder
    monkeypatch.setattr(_servers, "make_folder", lambda: made.append(plain()) or made[-1])
    with pytest.raises(ServerError, match="no_such_setting"):
        PostgresServer(template=postgres_template, settings={"no_such_setting": "1"})
    assert len(made) == 1
    assert traces(str(made[0])) == []


def test_servers_postgres_outlives_a_forked_child(private_postgres: PostgresServer) -> None:
    child = os.fork()
    if child == 0:
        try:
            private_postgres.close()
            assert private_postgres.sql("SELECT 1") == [("1",)]
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert private_postgres.sql("SELECT 1") == [("1",)]


OWNER = """
    import os, sys, time
    from pathlib import Path
    from stillwarm._servers import PostgresServer
    server = PostgresServer(template=Path(sys.argv[1]))
    if sys.argv[2] == "fork" and os.fork() == 0:  # it holds all that its parent had open
        time.sleep(60)
    if sys.argv[2] == "frozen":
        server.freeze()
    print(server.socket, os.getpid(), flush=True)
    if sys.argv[2] != "exit":
        time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path, postgres_template: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    started = []

    def start(way: str) -> tuple[subprocess.Popen[str], str]:
        script = tmp_path / "owner.py"
        script.write_text(textwrap.dedent(OWNER))
        process = subprocess.Popen(
            [sys.executable, script, postgres_template, way],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PACKAGE},
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        folder = process.stdout.readline().split()[0]
        return process, folder

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("way", "number"),
    [
        ("exit", 0),
        ("wait", signal.SIGTERM),
        ("wait", signal.SIGINT),
        ("wait", signal.SIGKILL),
        ("fork", signal.SIGKILL),
        ("frozen", signal.SIGKILL),
    ],
)
def test_servers_postgres_ends_with_its_owner(owner: Any, way: str, number: int) -> None:
    process, folder = owner(way)
    if number:
        assert traces(folder)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as the terminal does
        else:
            process.send_signal(number)
    process.wait()
    eventually(lambda: not traces(folder), f"{traces(folder)} left")


# ------------------------------------------------------------------------------------------------------- as a fixture


SUITE = """
    import os, pytest, time
    @pytest.mark.parametrize("turn", range(4))
    def test_it(warm_postgres, turn):
        assert warm_postgres.sql("SELECT 1") == [("1",)]
        with open("folders", "a") as file:
            print(warm_postgres.socket, os.getpid(), file=file, flush=True)
        if os.path.exists("stay"):
            time.sleep(60)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one_process", "xdist"])
def test_servers_fixture_is_one_server_a_process_and_leaves_nothing(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess(*PLUGIN, *workers).assert_outcomes(passed=4)
    runs = [line.split() for line in (pytester.path / "folders").read_text().splitlines()]
    assert len(runs) == 4
    assert len({folder for folder, _ in runs}) == len({pid for _, pid in runs}) <= 2
    for folder, _ in runs:
        assert traces(folder) == []


def test_servers_fixture_leaves_nothing_when_pytest_is_terminated(pytester: pytest.Pytester) -> None:
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


def test_servers_fixture_names_the_package_that_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BIN", str(pytester.path))
    pytester.makepyfile("def test_it(warm_postgres): pass")
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*warm_postgres: no PostgreSQL server in *: install the Debian package postgresql*"])


def test_servers_are_not_loaded_where_nobody_asks() -> None:
    script = "import sys, stillwarm.testing as t; assert 'stillwarm._servers' not in sys.modules; t.PostgresServer"
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    with pytest.raises(AttributeError, match="Nothing"):
        stillwarm.testing.Nothing  # type: ignore[attr-defined]


def test_servers_keeper_spares_what_is_not_of_its_folder() -> None:
    folder, other = _servers.make_folder("warm-x"), _servers.make_folder("warm-x")
    keeper, keeper_of_other = Keeper(folder), Keeper(other)
    try:
        inside, outside = (
            subprocess.Popen(["tail", "-f", place / "file"], stderr=subprocess.DEVNULL) for place in (folder, other)
        )
        (folder / "file").touch()
        assert re.fullmatch(r"warm-x-\w+", folder.name)
        keeper.close()
        inside.wait()
        assert traces(str(folder)) == []
        assert other.exists()
    finally:
        keeper_of_other.close()
    outside.wait()
