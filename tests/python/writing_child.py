"""Another process that serves one write: a Flask app whose handler inserts a row, and may be killed in the middle.

    writing_child.py URL NAMESPACE with|without KEY hold|go

It says "inside" when the handler has inserted its row, and in `hold` stays there for ever; else the status it answered.

Thread rule: one thread.
Refuses to know: what is tested.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import flask
import psycopg


def start(url: str, namespace: str, *arguments: str) -> subprocess.Popen[str]:
    import stillwarm

    package = os.path.dirname(os.path.dirname(os.path.abspath(stillwarm.__file__)))
    return subprocess.Popen(
        [sys.executable, __file__, url, namespace, *arguments],
        env=dict(os.environ, PYTHONPATH=package),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def app_of(url: str, cache: Any, transaction: bool, inside: Any = lambda: None, decorated: bool = True) -> flask.Flask:
    """POST /effects inserts a row: in the transaction of the record, or in one of its own."""
    from stillwarm.flask import Stillwarm

    app = flask.Flask("effects")
    warm = Stillwarm(cache)

    def connection() -> Any:
        if "connection" not in flask.g:
            flask.g.connection = psycopg.connect(url)
        return flask.g.connection

    @app.teardown_appcontext
    def close(_: Any) -> None:
        if "connection" in flask.g:
            flask.g.connection.close()

    def effect() -> tuple[str, int]:
        connection().execute("INSERT INTO effects VALUES ('it')")
        if not (transaction and decorated):
            connection().commit()
        inside()
        return "done", 201

    if decorated:
        effect = warm.idempotent(transaction=connection if transaction else None, lease="3s")(effect)
    app.post("/effects")(effect)
    return app


def ask(app: flask.Flask, key: str) -> int:
    return app.test_client().post("/effects", headers={"Idempotency-Key": key}).status_code


def _main(url: str, namespace: str, mode: str, key: str, what: str) -> None:
    from stillwarm import Cache

    def inside() -> None:
        print("inside", flush=True)
        if what == "hold":
            threading.Event().wait()

    cache = Cache(url, namespace=namespace, timeout="20s", connect_timeout="20s", purge_every=None)
    if what == "go":
        print("ready", flush=True)
        sys.stdin.readline()
    print(ask(app_of(url, cache, mode == "with", inside), key), flush=True)
    cache.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
