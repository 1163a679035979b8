"""The routes, and what each of them shows of `cache_response`.

| route                          | type      | pattern                                                                |
|--------------------------------|-----------|------------------------------------------------------------------------|
| GET /api/dashboard             | DASHBOARD | the type's own ttl; a stale answer while the search server is down     |
| GET /api/orders/recent         | DASHBOARD | a ttl of its own, and a refresh behind the answer                      |
| GET /api/products/<id>         | PRODUCT   | a key of its own: query parameters of advertisers make no new entry    |
| GET /api/account               | USER      | one entry per user                                                     |
| GET /api/search?q=             | SEARCH    | conditional: an answer without results is not kept                     |
| GET /api/analytics?orders=     | ANALYTICS | the type's own ttl                                                     |
| POST /api/orders               |           | a write that invalidates by tag and by type                            |
| PUT /api/products/<id>/price   |           | a write that invalidates one product, and the searches that show it    |

Monitoring and warm-up, the seventh and the eighth pattern, are in `app`. The fallback while Redis is down and the two
levels, the ninth and the tenth, take another URL of the cache and nothing here: `levels` shows them.

Thread rule: requests on any thread.
Refuses to know: which cache it is, where that is, and that the search server is a stand-in.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify, request

from stillwarm import current_load
from stillwarm.demo.dashboard.search import NoSuchDocumentError, Search
from stillwarm.flask import CacheType, Stillwarm

warm = Stillwarm()
api = Blueprint("api", __name__)


def search() -> Search:
    return current_app.config["SEARCH"]  # type: ignore[no-any-return]


def answered(**fields: Any) -> Response:
    return jsonify(status="success", made_at=round(time.time(), 3), **fields)


# ------------------------------------------------------------------------------------------------------------ reading


@api.get("/api/dashboard")
@warm.cache_response(CacheType.DASHBOARD, tags=["orders"], stale_if_error="1h")
def dashboard() -> Response:
    return answered(figures=search().figures())


@api.get("/api/orders/recent")
@warm.cache_response(CacheType.DASHBOARD, ttl="30s", stale_while_revalidate="30s", tags=["orders"])
def recent_orders() -> Response:
    return answered(orders=search().ask("recent"))


@api.get("/api/products/<int:product_id>")
@warm.cache_response(
    CacheType.PRODUCT, key="product:{product_id}", vary_on=(), tags=lambda product_id: [f"product:{product_id}"]
)
def product(product_id: int) -> Response:
    try:
        return answered(product=search().ask("product", product_id))
    except NoSuchDocumentError as error:
        abort(404, str(error))


def user() -> str | None:
    """Who asks. A real app looks a session up; here the token of a user is their name."""
    scheme, _, name = request.headers.get("Authorization", "").partition(" ")
    return name if scheme == "Bearer" and name else None


@api.get("/api/account")
@warm.cache_response(CacheType.USER, per_user=user, tags=lambda: [f"user:{user()}"])
def account() -> Response:
    name = user()
    if name is None:
        abort(401, "accepted: Authorization: Bearer with the name of a user")
    return answered(account=search().ask("customer", name))


def found_nothing(response: Response) -> bool:
    return not response.get_json()["results"]


@api.get("/api/search")
@warm.cache_response(CacheType.SEARCH, unless=found_nothing, vary_on=())
def find() -> Response:
    text = request.args.get("q", "").strip()
    if not text:
        abort(400, "q: accepted: words to look for")
    found = search().ask("find", text)
    current_load().tags.extend(f"product:{one['id']}" for one in found)  # known only now: a new price is in them too
    return answered(results=found)


@api.get("/api/analytics")
@warm.cache_response(CacheType.ANALYTICS)
def analytics() -> Response:
    orders = request.args.get("orders", 100, type=int)
    if not 1 <= orders <= 100_000:
        abort(400, f"orders={orders}: accepted: 1 to 100000")
    return answered(orders=orders, countries=search().ask("report", orders))


# ------------------------------------------------------------------------------------------------------------ writing


def touched_by_an_order() -> list[Any]:
    """Asked after the write: the pages with figures of all orders, the reports, and the customer's own page."""
    return ["orders", {"type": CacheType.ANALYTICS}, f"user:{request.get_json()['customer']}"]


@api.post("/api/orders")
@warm.cache_response(invalidates=touched_by_an_order)
def add_order() -> tuple[Response, int]:
    search().add_order(checked_order(request.get_json(silent=True)))
    return jsonify(status="success"), 201


@api.put("/api/products/<int:product_id>/price")
@warm.cache_response(invalidates=lambda product_id: [f"product:{product_id}"])
def set_price(product_id: int) -> Response:
    document = request.get_json(silent=True)
    price = checked_amount("price", document.get("price") if isinstance(document, dict) else None)
    try:
        search().set_price(product_id, price)
    except NoSuchDocumentError as error:
        abort(404, str(error))
    return jsonify(status="success")


def checked_order(document: Any) -> dict[str, Any]:
    """The order in a request's body; what is none is answered with 400, naming the field and what is accepted."""
    if not isinstance(document, dict):
        abort(400, "the body is not a JSON object; accepted: customer, product, country, amount")
    for name in ("customer", "product", "country"):
        if not isinstance(document.get(name), str) or not document[name]:
            abort(400, f"{name}={document.get(name)!r}: accepted: text that is not empty")
    amount = checked_amount("amount", document.get("amount"))
    return {"amount": amount, **{name: document[name] for name in ("customer", "product", "country")}}


def checked_amount(name: str, amount: Any) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 < amount < 1e9:
        abort(400, f"{name}={amount!r}: accepted: a number above 0 and below 1e9")
    return amount


__all__ = ["api", "warm"]
