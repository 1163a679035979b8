"""The app of `test_web_workers`, for gunicorn: each worker has a cache of its own, and says in X-Worker which it is.

Thread rule: as gunicorn's workers; each has one thread.
Refuses to know: what is tested. $STILLWARM_URL says where the cache is; without it each worker has memory only.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

from stillwarm import Cache
from stillwarm.flask import CacheType, Stillwarm

# As gunicorn's configuration: it makes no folder in the user's home (from gunicorn 25 on; ignored before).
control_socket_disable = True


def made() -> Callable[[Any, Any], Iterable[bytes]]:
    """The app: a page, and a write that invalidates it."""
    app, warm, loads = Flask("workers"), Stillwarm(), itertools.count(1)
    cache = Cache(os.environ.get("STILLWARM_URL"), namespace="workers", timeout="20s", purge_every=None)
    warm.init_app(app, cache)

    @app.get("/page")
    @warm.cache_response(CacheType.DASHBOARD, tags=["pages"])
    def page() -> Any:
        return {"made": f"{os.getpid()}-{next(loads)}"}

    @app.post("/write")
    @warm.cache_response(invalidates=["pages"])
    def write() -> Any:
        return {}

    @app.get("/written")
    def written() -> Any:
        """Answers when everything that was written behind is there."""
        return {"written": cache._tier is None or cache._tier.core.drain(20_000_000_000)}

    def named(environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], exc_info)

        return app(environ, start)

    return named
