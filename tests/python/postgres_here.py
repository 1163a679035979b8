"""A private PostgreSQL for the tests of this directory, with a new database for each test and a Query of it.

Thread rule: one server per test process; a Query may be called by any thread.
Refuses to know: what is asked.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from stillwarm._ask import environment
from stillwarm._connect import connect_query
from stillwarm._servers import binaries
from stillwarm._sql_types import Query

BIN = binaries()


@dataclass
class Database:
    """An empty database; `query` is a Query of the library, `sql` runs anything and gives Python values."""

    url: str
    query: Query

    def sql(self, text: str, *params: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text, params or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []


def _run(command: Sequence[str]) -> None:
    if getpass.getuser() == "root":  # the server refuses to run as root
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp", env=environment())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A URL without a database of a server that lives as long as the tests."""
    folder = Path(tempfile.mkdtemp(prefix="stillwarm-pg-", dir="/tmp"))
    if getpass.getuser() == "root":
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    _run([str(BIN / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C", "-E", "UTF8"])
    cron = (BIN.parent / "lib" / "pg_cron.so").exists()
    settings = [
        f"port={port}",
        "listen_addresses=127.0.0.1",
        f"unix_socket_directories={folder}",
        "fsync=off",
        "timezone=UTC",
        "autovacuum_naptime=1s",
        *(["shared_preload_libraries=pg_cron", "cron.database_name=cron"] if cron else []),
    ]
    options = " ".join(f"-c {one}" for one in settings)
    _run([str(BIN / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start"])
    try:
        yield f"postgresql://postgres:secretword@127.0.0.1:{port}"
    finally:
        _run([str(BIN / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


_made = iter(range(10**6))


@pytest.fixture
def database(postgres_server: str) -> Iterator[Database]:
    """A new database."""
    name = f"t{os.getpid()}_{next(_made)}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        # Not the collation "C" that the library's own columns have: mixing the two must be said.
        connection.execute(  # type: ignore[call-overload]
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
    url = f"{postgres_server}/{name}"
    query = connect_query(url)
    yield Database(url, query)
    query.close()
