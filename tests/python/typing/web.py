"""What users write with the web layer, as type checkers see it."""

from __future__ import annotations

from fastapi import FastAPI
from flask import Flask

from stillwarm import Cache
from stillwarm import fastapi as warm_fastapi
from stillwarm import flask as warm_flask

cache = Cache()
api = FastAPI()
api.add_middleware(warm_fastapi.ResponseCache, cache=cache, ttl="5m", ignore_cookies=["_ga*"])
warm = warm_fastapi.Stillwarm(cache)


@api.get("/scores/{asin}")
@warm.cache_response(warm_fastapi.CacheType.SEARCH, ttl=300, tags=lambda asin: [f"asin:{asin}"])
async def score(asin: str) -> dict[str, str]:
    return {"asin": asin}


site = Flask(__name__)
site.wsgi_app = warm_flask.ResponseCache(site.wsgi_app, cache, stale_if_error="1h")  # type: ignore[method-assign]
pages = warm_flask.Stillwarm(cache)


@site.get("/page/<int:number>")
@pages.cache_response(ttl="1h", per_user=lambda: "somebody", invalidates=[{"type": "pages"}])
def page(number: int) -> str:
    return str(number)


@api.post("/orders")
@warm.idempotent(transaction="db", on_crash="rerun")
async def order(db: object) -> dict[str, int]:
    return {"n": 1}


@site.post("/orders")
@pages.idempotent(ttl="1h", per_user=lambda: "somebody")
def order_page() -> str:
    return "1"


async def use() -> None:
    ordered: dict[str, int] = await order(object())
    text_of: str = order_page()
    print(ordered, text_of, pages.release_idempotent("POST /orders", "key", user="somebody"))
    answer: dict[str, str] = await score("B07")
    text: str = page(1)
    print(answer, text)
