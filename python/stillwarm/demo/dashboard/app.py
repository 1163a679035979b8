"""The app: a Flask API in front of a slow search server, cached route by route (`routes`), with its operator's page.

Where the cache is, is the business of the `Cache` that comes in: with a remote tier it is another URL, and nothing
here or in the routes changes.

Thread rule: `create_app` and `warm_up` on any thread, in any number of apps; requests on any thread.
Refuses to know: who drives it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from stillwarm import Cache, Warmed
from stillwarm.demo.dashboard.routes import api, warm
from stillwarm.demo.dashboard.search import Search

# What many ask for, and what is slow: the first caller after a start shall not be the one who waits.
WARM_UP = (
    "/api/dashboard",
    "/api/orders/recent",
    *(f"/api/products/{number}" for number in range(6)),
    *(f"/api/search?q={word}" for word in ("kettle", "lamp", "scarf", "teapot", "blanket", "mug")),
    *(f"/api/analytics?orders={orders}" for orders in (100, 1000)),
)


def create_app(search: Search, cache: Cache, token: str, alerts: dict[str, Any] | None = None) -> Flask:
    """The app, and everything that it has to be given.

    Args:
        search: its client of the search server.
        cache: where answers are kept. Types that it defines, such as `cache.define("dashboard", ttl=60)`, stay as they
            are; the others of `CacheType` get their usual ttl.
        token: opens the operator's page and the management endpoints, under /api/cache.
        alerts: thresholds other than the usual ones.
    """
    app = Flask(__name__)
    app.config["SEARCH"] = search
    app.register_blueprint(api)
    warm.init_app(app, cache)
    with app.app_context():
        app.register_blueprint(warm.management(auth=token, alerts=alerts))
    page = files(__package__).joinpath("page.html").read_text("utf-8")

    @app.get("/")
    def index() -> Response:
        return Response(page, mimetype="text/html")

    # Errors of every kind are JSON, and none of them is kept.

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[Response, int]:
        return failed(error.description, error.code or 500)

    @app.errorhandler(OSError)
    def unavailable(error: OSError) -> tuple[Response, int]:
        return failed("the search server does not answer", 503)

    return app


def failed(message: object, status: int) -> tuple[Response, int]:
    return jsonify(status="error", message=message), status


def warm_up(app: Flask, url: str, progress: Callable[[int, int], object] | None = None) -> Warmed:
    """Makes the app ask itself for `WARM_UP`, as a client of `url` would, before the first client comes."""
    return warm.warm_up(app, [url + path for path in WARM_UP], progress=progress)


__all__ = ["WARM_UP", "create_app", "warm_up"]
