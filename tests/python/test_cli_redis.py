"""The commands on Redis as a user starts them: processes of their own, a real server, no password in any output.

Thread rule: one thread; commands run in processes of their own.
Refuses to know: what the doctor looks at (test_redis_doctor), and how entries are judged.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwarm import Cache, ConfigError
from stillwarm._connect import is_redis, shown_url, unsafe, url_of, without_passwords
from stillwarm._redis_server import RedisServer
from test_cli_remote import SECRET, run
from tiers import eventually

OPTIONS = {"ttl": None, "timeout": "20s", "connect_timeout": "20s", "purge_every": None}


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    """A server with a password, which no output may have."""
    with RedisServer(settings={"requirepass": SECRET, "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}) as server:
        yield server


@pytest.fixture
def url(locked: RedisServer) -> str:
    return locked.new_database()


def fill(url: str, namespace: str = "default") -> None:
    with Cache(url, namespace=namespace, **OPTIONS) as cache:
        cache.define("report", ttl=None)
        report = cache.cached("report", name="report")(lambda day: day)
        report("monday")
        cache.set("k1", 1)
        cache.set("k2", 2, tags=["even"])
        for _ in range(3):
            cache.get("k1"), report("monday")


def test_cli_redis_stats_top_invalidate_purge(url: str) -> None:
    fill(url)
    at = ("--url", url)
    figures = {row["type"]: row for row in json.loads(run("stats", *at, "--json").stdout)["types"]}
    assert (figures["direct"]["entries"], figures["direct"]["hits"], figures["direct"]["table"]) == (2, 3, None)
    assert (figures["report"]["entries"], figures["report"]["expired"]) == (1, 0)
    assert "entries as stored: " in run("stats", *at).stdout
    assert [row["key"] for row in json.loads(run("top", *at, "--json").stdout)] == ["k1", "report:'monday'"]
    assert run("top", "-n", "1", *at).stdout.split() == ["hits", "type", "key", "3", "direct", "k1"]
    assert run("invalidate", "--tag", "even", *at).stdout == "invalidated\n"
    assert json.loads(run("purge", *at, "--json").stdout) == {"direct": 1}
    assert json.loads(run("invalidate", "--pattern", "k*", *at, "--json").stdout) == {"count": 1}
    assert run("invalidate", "--key", "report:'monday'", *at).stdout == "invalidated 1\n"
    fill(url)
    assert run("invalidate", "--type", "report", "--stale", *at).stdout == "invalidated\n"
    assert run("purge", *at).stdout == "type  rows\n"  # what is stale stays
    assert run("invalidate", "--all", *at).stdout == "invalidated\n"
    assert run("purge", "--batch", "10", *at).stdout.split() == ["type", "rows", "direct", "2", "report", "1"]


def test_cli_redis_reads_a_namespace_that_is_not_there_and_makes_none(url: str, locked: RedisServer) -> None:
    database = int(url.rpartition("/")[2])
    fill(url)
    at = ("--url", url, "--namespace", "typo")
    assert json.loads(run("stats", *at, "--json").stdout)["types"] == []
    assert json.loads(run("top", *at, "--json").stdout) == []
    assert "there are: default" in run("doctor", *at).stdout
    assert locked.command("KEYS", "stillwarm:{typo}*", database=database) == []
    assert locked.command("KEYS", "stillwarm:{default}:m", database=database) != []  # the control


def test_cli_redis_invalidate_is_heard_at_once(url: str) -> None:
    with Cache(url, **{**OPTIONS, "max_lag": "10m"}) as cache:  # the poll alone would take five minutes
        cache.set("k", 1)
        cache.set("other", 2)
        assert cache._tier is not None
        health = cache._tier.core.health
        eventually(lambda: health()["linked"] and health()["polls"] > 0, "it does not listen")
        assert run("invalidate", "--key", "k", "--url", url).stdout == "invalidated 1\n"
        eventually(lambda: cache.get("k") is None, "the entry is still there")
        assert cache.get("other") == 2


def test_cli_redis_app_names_the_types(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop_redis.py").write_text(
        "from stillwarm import Cache\ncache = Cache()\ncache.define('reports', ttl=5)\n"
    )
    fill(url)
    path = os.pathsep.join([*sys.path, str(tmp_path)])
    app = ("--app", "shop_redis:cache", "--url", url)
    types = json.loads(run("stats", *app, "--json", PYTHONPATH=path).stdout)["types"]
    assert [(row["type"], row["entries"]) for row in types] == [("reports", 0), ("direct", 2), ("report", 1)]
    found = run("doctor", *app, PYTHONPATH=path)
    assert "type reports: values are fresh for 5 s" in found.stdout
    assert found.returncode == 0


def test_cli_redis_doctor_exits_as_it_found(url: str, locked: RedisServer) -> None:
    fill(url)
    done = run("doctor", "--url", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")
    locked.command("CONFIG", "SET", "maxmemory", "0")
    try:
        assert run("doctor", "--url", url).returncode == 0  # a note is no fault
        (note,) = json.loads(run("doctor", "--json", "--url", url).stdout)
        assert (note["level"], "CONFIG SET maxmemory" in note["advice"]) == ("note", True)
    finally:
        locked.command("CONFIG", "SET", "maxmemory", "1gb")
    wrong = run("doctor", "--url", url.replace(SECRET, "wrong"))
    assert wrong.returncode == 1
    assert "WRONGPASS" in wrong.stdout


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("db", "migrate"), "stillwarm db needs PostgreSQL: Redis has no tables"),
        (("db", "verify"), "stillwarm db needs PostgreSQL"),
        (("db", "sql"), "stillwarm db needs PostgreSQL"),
        (("idempotency", "list"), "stillwarm idempotency needs PostgreSQL"),
        (("purge", "--max-rows", "1"), "maxmemory"),
        (("purge", "--pg-cron"), "maxmemory"),
        (("invalidate", "--type", "t", "--where", "a > 1"), "where= needs PostgreSQL"),
        (("invalidate",), "accepted: one of key, type, tag, pattern, all"),
        (("invalidate", "--all", "--key", "k"), "accepted: one of key, type, tag, pattern, all"),
        (("stats", "--namespace", 'a"b'), "namespace="),
    ],
)
def test_cli_redis_refuses_with_a_reason(url: str, command: tuple[str, ...], reason: str) -> None:
    done = run(*command, "--url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_cli_redis_url_comes_from_the_environment(url: str) -> None:
    fill(url)
    assert json.loads(run("top", "-n", "1", "--json", REDIS_URL=url).stdout)[0]["key"] == "k1"
    assert json.loads(run("top", "-n", "1", "--json", STILLWARM_URL=url, REDIS_URL="redis://:1").stdout) != []
    refused = run("db", "migrate", REDIS_URL=url)
    assert refused.returncode == 2
    assert "REDIS_URL='redis://:***@" in refused.stderr
    broken = run("stats", REDIS_URL=f"redis://:{SECRET}/x@host:1")
    assert (broken.returncode, "REDIS_URL='redis://:***@host:1': " in broken.stderr) == (2, True)


@pytest.mark.parametrize("command", ["stats", "top", "purge", "invalidate", "doctor"])
def test_cli_redis_that_does_not_answer_is_one_line(command: str) -> None:
    more = ("--all",) if command == "invalidate" else ()
    done = run(command, *more, "--url", f"redis://:{SECRET}@127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stillwarm: redis://:***@127.0.0.1:1/0: ")
    assert "refused" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["stats", "top", "purge", "invalidate"])
def test_cli_redis_wrong_password_is_named_and_not_shown(url: str, command: str) -> None:
    more = ("--all",) if command == "invalidate" else ()
    done = run(command, *more, "--url", url.replace(SECRET, f"{SECRET}x"))
    assert done.returncode == 1
    assert "WRONGPASS" in done.stderr


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (None, {"REDIS_URL": f"redis://:{SECRET}@h:x"}, "REDIS_URL='redis://:***@h:x': the port is no number"),
        (f"redis://:{SECRET}@h?x=1", {}, "url='redis://:***@h?x=1': the parameter 'x' is not known"),
        (f"redis://:{SECRET}@h?ssl=1", {}, "url='redis://:***@h?ssl=1': the parameter 'ssl' is of TLS"),
        (f"mysql://:{SECRET}@h", {}, "url='mysql://:***@h': accepted: postgresql://user@host/database or redis://"),
        (None, {}, "no URL: give --url, or set STILLWARM_URL, DATABASE_URL or REDIS_URL"),
    ],
)
def test_cli_redis_url_that_is_wrong_names_where_it_is_from(
    given: str | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        url_of(given, environment)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


def test_cli_redis_url_that_is_right_is_taken() -> None:
    assert url_of("valkey://h/3") == "valkey://h/3"
    assert is_redis(url_of(None, {"REDIS_URL": "unix:///s"}))
    assert not is_redis(url_of(None, {"DATABASE_URL": "postgres://h/d", "REDIS_URL": "redis://h"}))
    assert shown_url(f"redis://:{SECRET}@h/3") == "redis://:***@h/3"
    assert without_passwords("no p@w here", "redis://:p%40w@h") == "no *** here"
    assert unsafe("redis://cache.example.com") == "host cache.example.com is reached without TLS"
    assert unsafe("redis://127.0.0.1") is unsafe("unix:///s") is None
