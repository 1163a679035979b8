"""One question to a PostgreSQL and its answer as text: by psycopg where it is installed, by the program psql otherwise.

Both give the same: rows of text or None, those of the last statement. Parameters are $1, $2... of no declared type.

Thread rule: a call has its own connection; any thread.
Refuses to know: which server it is, and what is asked.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Row", "ServerError", "ask", "environment"]

Row = tuple["str | None", ...]


class ServerError(RuntimeError):
    """A private server did not start, was not there, or refused what it was asked; then `sqlstate` is set."""

    sqlstate: str | None = None


def environment() -> dict[str, str]:
    """Of the programs that we start: plain, without a sanitizer's library and without PG* variables."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "PGCLIENTENCODING": "UTF8"}


def ask(programs: Path, url: str, text: str, params: Sequence[object], timeout: float) -> list[Row]:
    given = [None if param is None else str(param) for param in params]
    try:
        import psycopg
    except ImportError:
        return _by_psql(programs, url, text, given, timeout)
    return _by_libpq(psycopg, url, text, given, timeout)


def _failed(message: str, sqlstate: str | None) -> ServerError:
    error = ServerError(f"{sqlstate}: {message.strip()}" if sqlstate else message.strip())
    error.sqlstate = sqlstate
    return error


def _by_libpq(psycopg: Any, url: str, text: str, params: list[str | None], timeout: float) -> list[Row]:
    pq, deadline = psycopg.pq, time.monotonic() + timeout
    connection = pq.PGconn.connect(f"{url}?connect_timeout={max(2, int(timeout))}".encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise _failed(connection.error_message.decode(errors="replace"), None)
        if params:
            connection.send_query_params(text.encode(), [None if p is None else p.encode() for p in params])
        else:
            connection.send_query(text.encode())
        last = None
        while True:
            while connection.is_busy():
                if not select.select([connection.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise _failed(f"no answer within {timeout:g} s", None)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            last = result
            if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY):
                state = result.error_field(pq.DiagnosticField.SQLSTATE)
                message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
                raise _failed(message.decode(errors="replace"), state.decode() if state else None)
        if last is None:
            return []
        columns = range(last.nfields)
        cells = [[last.get_value(row, column) for column in columns] for row in range(last.ntuples)]
        return [tuple(None if cell is None else cell.decode() for cell in row) for row in cells]
    except psycopg.Error as error:  # the connection broke
        raise _failed(str(error), None) from error
    finally:
        connection.finish()


def _by_psql(programs: Path, url: str, text: str, params: list[str | None], timeout: float) -> list[Row]:
    program = programs / "psql"
    command: list[str | Path] = [program if program.exists() else "psql", url, "-XqAt", "-v", "ON_ERROR_STOP=1"]
    command += ["-v", "VERBOSITY=verbose", "-v", "SHOW_ALL_RESULTS=off", "-F", "\x1f", "-R", "\x1e", "-P", "null=\x1d"]
    if params:  # psql puts variables in as quoted literals, and only into what it reads
        for number, param in enumerate(params, 1):
            command += [] if param is None else ["-v", f"p{number}={param}"]
        literals = ["NULL" if param is None else f":'p{number}'" for number, param in enumerate(params, 1)]
        text = re.sub(r"\$([1-9][0-9]*)", lambda match: literals[int(match[1]) - 1], text) + ";\n"
    else:
        command += ["-c", text]
    try:
        done = subprocess.run(
            command,
            input=text if params else "",
            capture_output=True,
            timeout=timeout,
            encoding="utf-8",
            env=environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(f"no answer within {timeout:g} s", None) from error
    except FileNotFoundError as error:
        raise _failed("neither psycopg nor psql is installed: Debian package postgresql-client", None) from error
    if done.returncode:
        found = re.search(r"(?:ERROR|FATAL):  ([0-9A-Z]{5}): (.*)", done.stderr)
        raise _failed(found[2] if found else done.stderr, found[1] if found else None)
    if not done.stdout:
        return []
    rows = done.stdout.removesuffix("\n").removesuffix("\x1e").split("\x1e")
    return [tuple(None if cell == "\x1d" else cell for cell in row.split("\x1f")) for row in rows]
