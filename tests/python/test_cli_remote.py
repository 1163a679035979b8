"""The commands on a database as a user starts them: a process of its own, a real server, no password in any output.

Thread rule: one thread; commands run in processes of their own.
Refuses to know: what the statements do (test_admin, test_schema).
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from fronts import until
from postgres_here import Database
from reference_tables import discovery, scoring
from stillwarm import Cache, ConfigError
from stillwarm._connect import shown_url, unsafe, url_of, without_passwords
from stillwarm._doctor import examine
from stillwarm._place import Place
from stillwarm._schema import migrate
from stillwarm._servers import PostgresServer

HERE = Path(__file__).parent
SECRET = "secretword"


def environment(**changes: str) -> dict[str, str]:
    hidden = (
        "NO_COLOR",
        "FORCE_COLOR",
        "PYTHONUTF8",
        "COLUMNS",
        "DATABASE_URL",
        "REDIS_URL",
        "STILLWARM_URL",
        "STILLWARM_NAMESPACE",
    )
    plain = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**plain, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)]), **changes}


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "stillwarm.cli", *arguments], capture_output=True, env=environment(**changes),
        timeout=120, check=False, text=True, encoding=changes.get("PYTHONIOENCODING", "utf-8"),
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


@pytest.fixture
def migrated(database: Database) -> Database:
    migrate(database.query, [discovery(), scoring()])
    return database


def fill(database: Database) -> None:
    database.sql(
        "INSERT INTO stillwarm.entries SELECT 'default', 'k' || n, 'plain', 'x', NULL, pg_current_snapshot(), "
        "pg_current_xact_id(), now(), now() + i, now() + i, n FROM (VALUES (1, interval '1 h'), (2, interval '1 h'), "
        "(3, interval '-1 s')) v (n, i)"
    )
    database.sql(
        "INSERT INTO product_scoring_cache VALUES ('scoring:B1:1', 'B1', 30, 1, 'BUY', 'Gr\u00fc\u00dfe \u65e5', "
        "1, 1, now(), now() + interval '1 day', 7)"
    )


def test_cli_remote_migrate_and_verify_from_nothing(database: Database) -> None:
    missing = run("db", "verify", "--url", database.url)
    assert missing.returncode == 1
    assert "stillwarm.entries is missing: stillwarm db migrate" in missing.stdout
    app = ("--app", "reference_tables:HISTORY")
    assert run("db", "migrate", "--url", database.url, *app).returncode == 2
    made = run("db", "migrate", "--url", database.url, "--json")
    assert made.returncode == 0
    assert json.loads(made.stdout)["already"] is False
    assert "nothing to do" in run("db", "migrate", "--url", database.url).stdout
    verified = run("db", "verify", "--url", database.url, "--json")
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)


def test_cli_remote_tables_come_from_the_app_and_then_from_the_database(database: Database, tmp_path: Path) -> None:
    (tmp_path / "shop_tables.py").write_text(
        "from reference_tables import *\nfrom stillwarm.journal import Journal\n"
        "tables = [discovery(), scoring(), Journal(None, 'search_history', HISTORY, HISTORY_INDEXES)]\n"
    )
    path = os.pathsep.join([*sys.path, str(HERE), str(tmp_path)])
    printed = run("db", "sql", "--app", "shop_tables:tables", PYTHONPATH=path)
    assert printed.returncode == 0
    database.sql(printed.stdout)
    assert run("db", "verify", "--url", database.url, "--app", "shop_tables:tables", PYTHONPATH=path).returncode == 0
    text = run("db", "verify", "--url", database.url).stdout
    assert "product_scoring_cache: 0 rows" in text
    assert "roi_percent double precision not null" in text
    assert "idx_scoring_roi" in text
    for wrong in ("shop_tables", "shop_tables:nope", "not_there:x"):
        assert run("db", "sql", "--app", wrong, PYTHONPATH=path).returncode == 2


def test_cli_remote_stats_top_invalidate_purge(migrated: Database) -> None:
    fill(migrated)
    url = ("--url", migrated.url)
    figures = {row["type"]: row for row in json.loads(run("stats", *url, "--json").stdout)["types"]}
    assert (figures["plain"]["entries"], figures["plain"]["expired"], figures["scoring"]["hits"]) == (3, 1, 7)
    assert "product_scoring_cache" in run("stats", *url).stdout
    assert [row["key"] for row in json.loads(run("top", "-n", "2", *url, "--json").stdout)] == ["scoring:B1:1", "k2"]
    assert json.loads(run("purge", *url, "--json").stdout) == {"discovery": 0, "scoring": 0, "plain": 1}
    by_column = ("--type", "scoring", "--where", "roi_percent > :least", "--param", "least=20")
    assert json.loads(run("invalidate", *by_column, *url, "--json").stdout) == {"count": 1}
    assert run("invalidate", "--pattern", "k*", *url).stdout == "invalidated 2\n"
    assert run("invalidate", "--all", *url).stdout == "invalidated\n"
    assert run("invalidate", *url).returncode == 2
    assert "cron.schedule" in run("purge", "--pg-cron", *url).stdout
    assert "plain" not in run("purge", "--max-rows", "0", *url).stdout


def test_cli_remote_app_is_a_cache(database: Database, tmp_path: Path) -> None:
    (tmp_path / "shop_cache.py").write_text(
        "from stillwarm import Cache\nfrom stillwarm.demo.discovery.tables import define_types\n"
        "cache = Cache(namespace='shop')\ndefine_types(cache, empty_ttl=0)\n"
    )
    path = os.pathsep.join([*sys.path, str(HERE), str(tmp_path)])
    app = ("--app", "shop_cache:cache", "--url", database.url)
    assert run("db", "migrate", *app, PYTHONPATH=path).returncode == 0
    assert run("db", "verify", *app, PYTHONPATH=path).returncode == 0
    assert json.loads(run("stats", *app, "--json", "--namespace", "shop", PYTHONPATH=path).stdout)["types"][0] == {
        "type": "discovery", "entries": 0, "hits": 0, "average_hits": 0.0, "expired": 0,
        "bytes": database.sql("SELECT pg_total_relation_size('product_discovery_cache')")[0][0],
        "table": "product_discovery_cache",
    }  # fmt: skip
    assert run("doctor", *app, PYTHONPATH=path).returncode == 0


def test_cli_remote_invalidate_is_heard_at_once(database: Database) -> None:
    with Cache(database.url, max_lag="10m", ttl="1h") as cache:  # the poll alone would take five minutes
        cache.set("k", 1)
        cache.set("other", 2)
        assert cache._tier is not None
        health = cache._tier.core.health
        until(lambda: health()["linked"] and health()["polls"] > 0, "it listens")
        heard, polls = health()["heard"], health()["polls"]
        assert run("invalidate", "--key", "k", "--url", database.url).stdout == "invalidated 1\n"
        until(lambda: health()["heard"] > heard and health()["polls"] > polls, "it was told")
        until(lambda: cache.get("k") is None, "the entry is gone")
        assert cache.get("other") == 2


def test_cli_remote_goes_through_a_pooler(pgbouncer: str) -> None:
    assert run("db", "migrate", "--url", pgbouncer).returncode == 0
    assert run("db", "verify", "--url", pgbouncer).returncode == 0
    assert run("invalidate", "--all", "--url", pgbouncer).stdout == "invalidated\n"


def test_cli_remote_wrong_password_is_not_shown(private_postgres: PostgresServer) -> None:
    hba = private_postgres.sql("SHOW hba_file")[0][0]
    assert hba
    private_postgres.sql(f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}x'")
    rules = Path(hba).read_text()
    Path(hba).write_text(f"host all locked all scram-sha-256\n{rules}")
    private_postgres.sql("SELECT pg_reload_conf()")
    wrong = f"postgresql://locked:{SECRET}@127.0.0.1:{private_postgres.port}/postgres"
    done = run("stats", "--url", wrong)
    assert done.returncode == 1
    assert "password authentication failed" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_cli_remote_prints_on_any_terminal(migrated: Database, encoding: str) -> None:
    fill(migrated)
    migrated.sql("UPDATE product_scoring_cache SET cache_key = 'scoring:\u65e5\u672c:1'")
    for command in (["stats"], ["db", "verify"], ["doctor"]):
        done = run(*command, "--url", migrated.url, PYTHONIOENCODING=encoding, LC_ALL="C", LANG="C")
        assert done.returncode == 0, done.stderr + done.stdout
    shown = run("top", "--url", migrated.url, PYTHONIOENCODING=encoding).stdout
    assert ("\u65e5\u672c" if encoding == "utf-8" else "\\u65e5\\u672c") in shown


def test_cli_remote_colours_on_a_terminal_only(migrated: Database) -> None:
    fill(migrated)
    command = [sys.executable, "-m", "stillwarm.cli", "top", "--url", migrated.url]
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment(TERM="xterm"))
    os.close(follower)
    assert process.wait(60) == 0
    text = os.read(leader, 65536).decode()
    os.close(leader)
    assert "\x1b[" in text
    assert "\x1b[" not in run("top", "--url", migrated.url).stdout


def test_cli_remote_url_comes_from_the_environment(migrated: Database) -> None:
    fill(migrated)
    assert run("stats", STILLWARM_URL=migrated.url, DATABASE_URL="mysql://x").returncode == 0
    alchemy = migrated.url.replace("postgresql://", "postgresql+asyncpg://")
    assert run("stats", DATABASE_URL=alchemy).returncode == 0
    none = run("stats")
    assert (none.returncode, none.stdout) == (2, "")
    assert "STILLWARM_URL, DATABASE_URL or REDIS_URL" in none.stderr


def test_cli_remote_errors_are_one_line_without_the_password(database: Database) -> None:
    nobody = run("stats", "--url", f"postgresql://me:{SECRET}@127.0.0.1:1/db")
    assert nobody.returncode == 1
    assert "postgresql://me:***@127.0.0.1:1/db" in nobody.stderr
    foreign = run("stats", "--url", f"mysql://me:{SECRET}@host/db")
    assert foreign.returncode == 2
    assert "accepted: postgresql://" in foreign.stderr
    assert run("stats", "--url", f"postgresql://me:{SECRET}@host:port/db").returncode == 2
    unmade = run("stats", "--url", database.url)
    assert unmade.returncode == 1
    assert "stillwarm db migrate makes the tables" in unmade.stderr
    named = run("stats", "--url", database.url, "--namespace", 'a"b')
    assert named.returncode == 2
    assert "namespace=" in named.stderr


def test_cli_remote_url_is_shown_without_its_password() -> None:
    assert shown_url("postgresql://me:pw@h/db?password=pw2&a=1") == "postgresql://me:***@h/db?password=***&a=1"
    assert shown_url("postgresql://me@h/db") == "postgresql://me@h/db"
    assert without_passwords("no pw%20x here: pw x", "postgresql://me:pw%20x@h/db") == "no *** here: ***"
    with pytest.raises(ConfigError) as caught:
        url_of(None, {"DATABASE_URL": "oracle://me:pw@h/db"})
    assert "pw" not in str(caught.value)
    assert str(caught.value).startswith("DATABASE_URL=")


@pytest.mark.parametrize(
    ("url", "is_unsafe"),
    [
        ("postgresql://u@127.0.0.1/db", False),
        ("postgresql://u@localhost/db", False),
        ("postgresql:///db?host=/var/run/postgresql", False),
        ("postgresql://u@db.example.com/db", True),
        ("postgresql://u@db.example.com/db?sslmode=require", True),
        ("postgresql://u@db.example.com/db?sslmode=verify-full", False),
    ],
)
def test_cli_remote_way_to_the_server(url: str, is_unsafe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert (unsafe(url) is not None) == is_unsafe


def place_of(database: Database, namespace: str = "default") -> Place:
    return Place(database.query, namespace, "stillwarm", {"discovery": discovery(), "scoring": scoring()})


def test_doctor_finds_nothing_on_a_sound_database(migrated: Database) -> None:
    fill(migrated)
    assert [one.level for one in examine(place_of(migrated), migrated.url)] == ["note"]  # a quarter is expired
    migrated.sql("DELETE FROM stillwarm.entries WHERE expires_at < now()")
    assert examine(place_of(migrated), migrated.url) == []
    done = run("doctor", "--url", migrated.url)
    assert (done.returncode, done.stdout) == (0, "nothing found\n")


def test_doctor_names_duplicates_with_the_sql_that_keeps_the_newest(migrated: Database) -> None:
    fill(migrated)
    migrated.sql("DELETE FROM stillwarm.entries WHERE expires_at < now()")
    migrated.sql("ALTER TABLE product_scoring_cache DROP CONSTRAINT product_scoring_cache_pkey")
    migrated.sql("INSERT INTO product_scoring_cache SELECT * FROM product_scoring_cache")
    (found,) = examine(place_of(migrated), migrated.url)
    assert "no primary key or unique index over cache_key, and 1 duplicate rows block it" in found.what
    migrated.sql(found.advice.partition("migrate: ")[2])
    assert migrated.sql("SELECT count(*) FROM product_scoring_cache") == [(1,)]
    done = run("doctor", "--url", migrated.url)
    assert done.returncode == 1
    assert "stillwarm db migrate" in done.stdout
    assert run("db", "migrate", "--url", migrated.url).returncode == 0
    assert run("doctor", "--url", migrated.url).returncode == 0


def test_doctor_names_short_ttl_shared_namespace_time_zone_and_rights(migrated: Database) -> None:
    fill(migrated)
    migrated.sql("UPDATE stillwarm.entries SET fresh_until = created_at + interval '5 s'")
    migrated.sql("INSERT INTO stillwarm.entries SELECT 'shop', key, type, payload, tags, born, version, created_at, "
                 "'infinity', 'infinity', 0 FROM stillwarm.entries")  # fmt: skip
    name = migrated.url.rpartition("/")[2]
    migrated.sql(f"ALTER DATABASE {name} SET timezone TO 'Europe/Berlin'")
    migrated.sql("DROP ROLE IF EXISTS little; CREATE ROLE little LOGIN; GRANT USAGE ON SCHEMA stillwarm TO little; "
                 "GRANT SELECT ON ALL TABLES IN SCHEMA stillwarm, public TO little; "
                 "REVOKE SELECT ON stillwarm.floors FROM little")  # fmt: skip
    found = {one.what: one for one in examine(place_of(migrated), migrated.url)}
    assert any("fresh for 5 s, less than 30 s" in what for what in found)
    assert any("the namespace is 'default' in a database that others share: shop" in what for what in found)
    assert any("time zone is Europe/Berlin" in what for what in found)
    assert all(one.advice for one in found.values())
    # A namespace of one's own, whose values are kept for ever.
    assert [one.what for one in examine(place_of(migrated, "shop"), migrated.url) if one.level == "wrong"] == [
        "the database's time zone is Europe/Berlin, not UTC"
    ]
    little = migrated.url.replace("postgres:", "little:", 1)
    done = run("doctor", "--json", "--url", little)
    assert done.returncode == 1
    assert "GRANT INSERT, UPDATE, DELETE ON" in done.stdout
    assert "little may not SELECT" in done.stdout
    migrated.sql("REVOKE USAGE ON SCHEMA stillwarm FROM little")
    assert 'GRANT USAGE ON SCHEMA "stillwarm" TO "little"' in run("doctor", "--url", little).stdout
    migrated.sql("DROP OWNED BY little; DROP ROLE little")


def test_doctor_knows_what_only_the_app_knows(migrated: Database) -> None:
    class App:
        pooler = True
        _types: ClassVar = {"quick": {"ttl": 5}, "slow": {"ttl": "1m", "tags": ["a"]}, "never": {"ttl": None}}

        class Stats:
            class types:
                @staticmethod
                def get(name: str) -> object:
                    return type("Counters", (), {"loads": 2, "load_seconds": 200.0})() if name == "slow" else None

        def stats(self) -> object:
            return self.Stats

    found = [one.what for one in examine(place_of(migrated), migrated.url, App())]
    assert any("type quick: values are fresh for 5 s" in what for what in found)
    assert any("type slow: a load takes 100 s, its value is fresh for 60 s" in what for what in found)
    assert any("tags are in use without push" in what for what in found)
