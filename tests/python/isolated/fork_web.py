"""Forks while another thread holds the web layer's locks; the child's requests must be answered all the same.

Thread rule: a process of its own.
Refuses to know: pytest.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings

import flask

from stillwarm import Cache
from stillwarm.flask import Stillwarm
from stillwarm.web import front, plan

warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: fork with threads is what is tested

warm = Stillwarm()
app = flask.Flask("app")
held, done = threading.Event(), threading.Event()


@app.get("/")
@warm.cache_response(ttl=60)
def view() -> str:
    return "answer"


def hold() -> None:
    with front._lock, plan._lock:
        held.set()
        done.wait()


threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(10)  # ends a child that hangs
    warm.init_app(app, Cache())
    labels = [app.test_client().get("/").headers["X-Cache"] for _ in range(2)]
    os._exit(0 if labels == ["MISS", "HIT"] else 1)
status = os.waitpid(pid, 0)[1]
done.set()
print("child", status)
