"""A process whose threads send one request with one idempotency key, and which may be killed at a given point of it.

As a program it forks one child for each job, a line of JSON on stdin: the child says "ready", starts at the next line
and says what its threads were answered; the program says how the child ended.

    start      a request came in, and asked for nothing yet
    handler    the first line of the handler: the key is claimed
    effect     the effect is written, and not committed
    committed  the effect is committed: with transaction= together with the answer, without it before the answer is kept
    answered   the answer is kept, and not sent
    timer      some milliseconds after `handler`

Thread rule: the program has one thread, so that it may fork; a child starts its threads at a barrier.
Refuses to know: what should come out of it (key_writes).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import uuid
from typing import Any

import flask
import psycopg

from stillwarm import Cache
from stillwarm.flask import Stillwarm

POINTS = ("start", "handler", "effect", "committed", "answered", "timer")
TABLES = (
    'CREATE TABLE effects (key text, "user" text, body text)',
    "CREATE TABLE answers (key text, body text)",  # of the control
)


class Deadly:
    """Ends this process at one point, unless another one was ended in this round: who makes the file first."""

    def __init__(self, point: str = "", token: str = "", delay: float = 0.0) -> None:
        self._point, self._token, self._delay = point, token, delay

    def at(self, point: str) -> None:
        if self._point == point:
            self._kill()
        if self._point == "timer" and point == "handler":
            timer = threading.Timer(self._delay, self._kill)
            timer.daemon = True
            timer.start()

    def _kill(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._token, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)


def connection_of(url: str, dies: Deadly) -> psycopg.Connection[Any]:
    class Connection(psycopg.Connection[Any]):
        def commit(self) -> None:
            dies.at("effect")
            super().commit()
            dies.at("committed")

    return Connection.connect(url)


def app_of(url: str, cache: Cache, mode: str, dies: Deadly) -> flask.Flask:
    """POST /effects writes a row and answers its text. `mode`: "with" transaction=, "without", or "naive"."""
    app = flask.Flask("effects")
    nobody = Deadly()

    def connection() -> Any:
        if "connection" not in flask.g:
            flask.g.connection = connection_of(url, dies if user() == "A" else nobody)
        return flask.g.connection

    def user() -> str:
        return flask.request.headers["Authorization"].partition(" ")[2]

    @app.before_request
    def begin() -> None:
        dies.at("start")

    @app.after_request
    def end(response: flask.Response) -> flask.Response:
        if user() == "A" and response.status_code == 201 and "Idempotency-Replayed" not in response.headers:
            dies.at("answered")
        return response

    @app.teardown_appcontext
    def close(_: Any) -> None:
        if "connection" in flask.g:
            flask.g.connection.close()

    def effect() -> tuple[str, int]:
        key = flask.request.headers["Idempotency-Key"]
        if user() == "A":
            dies.at("handler")
        if mode == "naive":  # looks whether it was done, does it, and notes what it answered
            known = connection().execute("SELECT body FROM answers WHERE key = %s", [key]).fetchone()
            if known is not None:
                return str(known[0]), 201
        body = f"{user()} {uuid.uuid4()}"
        connection().execute("INSERT INTO effects VALUES (%s, %s, %s)", [key, user(), body])
        if mode == "naive":
            connection().execute("INSERT INTO answers VALUES (%s, %s)", [key, body])
        if mode != "with":
            connection().commit()
        return body, 201

    if mode != "naive":
        effect = Stillwarm(cache).idempotent(transaction=connection if mode == "with" else None, lease="3s")(effect)
    app.post("/effects")(effect)
    return app


def ask(app: flask.Flask, key: str, user: str) -> tuple[str, str, bool]:
    """Who asked, "201" with the body or another status with its code, and whether it was answered again."""
    answer = app.test_client().post(
        "/effects", headers={"Idempotency-Key": key, "Authorization": f"Bearer {user}"}, data=b"{}"
    )
    if answer.status_code == 201:
        return user, answer.text, "Idempotency-Replayed" in answer.headers
    code = (answer.json or {}).get("code", "") if answer.is_json else answer.text
    return user, f"{answer.status_code} {code}", False


def cache_of(url: str) -> Cache:
    return Cache(url, namespace="keys", timeout="20s", connect_timeout="20s", purge_every=None)


def _work(job: dict[str, Any]) -> None:
    users: list[str] = job["users"]
    with cache_of(job["url"]) as cache:
        app = app_of(job["url"], cache, job["mode"], Deadly(job["point"], job["token"], job["delay"]))
        barrier, answers = threading.Barrier(len(users) + 1), list[Any]()

        def run(user: str) -> None:
            barrier.wait(60)
            answers.append(ask(app, job["key"], user))

        threads = [threading.Thread(target=run, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        _say("ready")
        _line()
        barrier.wait(60)
        for thread in threads:
            thread.join()
        _say(json.dumps(answers))


def _line() -> bytes:
    """One line of stdin and not a byte more: the child of a fork goes on reading it."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def _main() -> None:
    logging.getLogger("stillwarm").addHandler(logging.NullHandler())
    while line := _line():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _work(json.loads(line))
                code = 0
            finally:
                os._exit(code)
        _say(json.dumps({"ended": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}))


if __name__ == "__main__":
    _main()
