"""`stillwarm idempotency list|release` as a user starts them: a process of its own, a real server, a terminal or none.

Thread rule: one thread; commands run in processes of their own.
Refuses to know: when an outcome is unknown (test_idempotent_failures), and what the endpoints show
(test_idempotent_operators).
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stillwarm._cli_idempotency import _span
from stillwarm._servers import PostgresServer
from test_cli_remote import environment, run
from tiers import Ground
from unknowing import ROUTE, SECRET, broken, record_of
from writing import KEY, Writes, code


@pytest.fixture
def ground(warm_postgres: PostgresServer) -> Iterator[Ground]:
    ground = Ground(warm_postgres.new_database())
    yield ground
    ground.close()


def command(ground: Ground, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    where = ("--url", str(ground.url), "--namespace", ground.namespace)
    done = subprocess.run(
        [sys.executable, "-m", "stillwarm.cli", "idempotency", *arguments, *where], capture_output=True, text=True,
        env=environment(), timeout=120, check=False, input=said,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert SECRET.decode() not in done.stdout
    return done


def released(writes: Writes, key: str = KEY) -> bool:
    answer = writes.ask(key)
    return answer.status == 201 and answer.body == SECRET


def test_cli_idempotency_list_shows_what_is_unknown(ground: Ground) -> None:
    cache = ground.cache()
    writes = broken(ground, cache)
    assert writes.ask("another").body == SECRET
    done = command(ground, "list", "--json")
    (one,) = json.loads(done.stdout)
    assert (done.returncode, one["record"], one["route"], one["by_cookies"]) == (0, record_of(), ROUTE, False)
    assert one["age"] >= 31
    text = command(ground, "list").stdout
    assert text.splitlines()[0].split() == ["record", "route", "begun", "expires", "caller"]
    assert record_of() in text
    assert "in 24 h" in text
    assert "\x1b[" not in text
    assert command(ground, "release", record_of(), "--yes").returncode == 0
    assert command(ground, "list").stdout == "no key is unknown\n"
    assert json.loads(command(ground, "list", "--json").stdout) == []


@pytest.mark.parametrize("said", ["n\n", ""])
def test_cli_idempotency_release_does_nothing_without_a_yes(ground: Ground, said: str) -> None:
    writes = broken(ground, ground.cache())
    done = command(ground, "release", record_of(), said=said)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{ROUTE}: begun" in done.stderr
    assert "the next request with this key runs the handler again" in done.stderr
    assert "Release it? [y/N]" in done.stderr
    assert done.stderr.rstrip().endswith("stillwarm: not released")
    assert code(writes.ask()) == "outcome-unknown"
    assert writes.executed == 1


def test_cli_idempotency_release_runs_again_after_a_yes(ground: Ground) -> None:
    writes = broken(ground, ground.cache())
    done = command(ground, "release", record_of(), said="y\n")
    assert done.returncode == 0
    assert done.stdout == "released: the next request with this key runs the handler again\n"
    assert released(writes)
    assert writes.executed == 2
    again = command(ground, "release", record_of(), "--yes")
    assert (again.returncode, again.stdout) == (1, "")
    assert "is not unknown: it is running, done, released or expired" in again.stderr
    assert writes.ask()["idempotency-replayed"] == "true"


def test_cli_idempotency_release_by_what_the_client_sent(ground: Ground) -> None:
    writes = broken(ground, ground.cache(), "one", "two")
    for user, key, status in (("bob", "one", 1), ("ann", "nothing", 1), ("ann", "one", 0)):
        asked = ("release", "--route", ROUTE, "--key", key, "--user", user, "--yes", "--json")
        done = command(ground, *asked)
        assert done.returncode == status
        told = json.loads(done.stdout)
        assert told == {"record": record_of(key, user), "route": ROUTE if status == 0 else None, "released": not status}
    assert released(writes, "one")
    assert code(writes.ask("two")) == "outcome-unknown"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("0" * 31,),
        ("0" * 32, "--key", "k"),
        ("--key", "k"),
        ("--route", ROUTE),
        ("--user", "ann"),
    ],
)
def test_cli_idempotency_release_refuses_wrong_arguments(arguments: tuple[str, ...]) -> None:
    done = run("idempotency", "release", *arguments, "--yes", "--url", "postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "accepted" in done.stderr


def test_cli_idempotency_colours_and_asks_on_a_terminal(ground: Ground) -> None:
    writes = broken(ground, ground.cache())
    where = ["--url", str(ground.url), "--namespace", ground.namespace]
    shown = b""
    for arguments in (["list"], ["release", record_of()]):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "stillwarm.cli", "idempotency", *arguments, *where],
            stdin=follower, stdout=follower, stderr=follower, env=environment(TERM="xterm", COLUMNS="200"),
        )  # fmt: skip
        os.write(leader, b"y\n")
        assert process.wait(60) == 0
        os.close(follower)
        try:
            while part := os.read(leader, 65536):
                shown += part
        except OSError:
            pass  # the end of a terminal that nobody has open
        os.close(leader)
    text = shown.decode()
    assert "\x1b[1mrecord" in text
    assert "Release it?" in text
    assert "released" in text
    assert released(writes)


def test_cli_idempotency_without_tables_or_server(ground: Ground) -> None:
    unmade = command(ground, "list")
    assert unmade.returncode == 1
    assert "stillwarm db migrate makes the tables" in unmade.stderr
    assert run("idempotency", "list", "--url", "postgresql://me@127.0.0.1:1/db").returncode == 1
    assert run("idempotency", "list").returncode == 2


def test_cli_idempotency_spans_have_one_unit() -> None:
    assert [_span(s) for s in (-1, 0.4, 119, 120, 7199, 7200, 172_799, 172_800)] == [
        "0 s", "0 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 d",
    ]  # fmt: skip
