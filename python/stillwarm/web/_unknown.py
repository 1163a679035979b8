"""Idempotency keys whose outcome is unknown, for an operator: which there are, and how one is freed.

Thread rule: any thread; a call may wait for the database.
Refuses to know: who may ask (`management`), and when an outcome is unknown (cpp/core/antidup/idempotency.hpp).

Keys and callers are not kept, only their hash, which is the name of the record here. An answer that was kept is never
shown. A route with on_crash="rerun" has its keys here too until their next request, which runs whatever is done here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stillwarm._durations import shown
from stillwarm._idempotency import Migrate, Unknown, key_of
from stillwarm._idempotency_memory import store_if_any, store_of
from stillwarm.errors import TierError
from stillwarm.web._exchange import Answer, Refused, answer, bad_field
from stillwarm.web._figures import hidden
from stillwarm.web._idempotent_steps import drive
from stillwarm.web.idempotent import caller_of

if TYPE_CHECKING:
    from stillwarm._cache import Cache

T = TypeVar("T")

RECORD: Final = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger("stillwarm")


def unknown(cache: Cache, most: int, record: str | None = None) -> list[Unknown]:
    """The oldest ones, or one of them.

    Raises:
        TierError: the database does not answer.
    """
    store = store_if_any(cache)
    return [] if store is None else _done(cache, store.unknown(most, record))


def release(cache: Cache, route: str, key: str, user: object, authorization: str) -> bool:
    """Frees a key whose outcome is unknown; False: there is none."""
    caller = caller_of(user, authorization)
    return _done(cache, store_of(cache).forget(key_of(caller, route, key)))


def listed(cache: Cache, most: int) -> Answer:
    """The answer to `GET /idempotency-unknown`."""
    try:
        found = unknown(cache, most)
    except TierError as error:
        raise Refused(503, f"the records cannot be read: {hidden(str(error))}") from None
    rows = [
        {**one._asdict(), **{name: round(getattr(one, name), 3) for name in ("age", "unknown_for", "expires_in")}}
        for one in found
    ]
    return answer({"status": "success", "unknown": rows})


def released(cache: Cache, record: object) -> Answer:
    """The answer to `POST /idempotency-release`."""
    if not isinstance(record, str) or not RECORD.fullmatch(record):
        raise bad_field("record", record, "32 hexadecimal digits, as /idempotency-unknown shows them")
    store = store_if_any(cache)
    try:
        found = unknown(cache, 1, record)
        freed = store is not None and bool(found) and _done(cache, store.forget(record))
    except TierError as error:
        message = f"it is not known to be released: {hidden(str(error))}; nothing happens twice, so ask again"
        raise Refused(503, message) from None
    if not freed:
        raise Refused(404, f"{shown(record)} is not unknown: it is running, done, released or expired")
    _log.warning("management: released the idempotency key %s of %s: it may run again", record, found[0].route)
    return answer({"status": "success", "record": record, "route": found[0].route, "released": True})


def _done(cache: Cache, steps: Generator[Any, Any, T]) -> T:
    class Asks:
        def do(self, wish: Any) -> Any:
            assert cache._tier is not None
            if isinstance(wish, Migrate):
                return cache.migrate()
            return cache._tier.query(wish.text, wish.params, wish.timeout / 1e9)

    result: T = drive(Asks(), steps)
    return result


__all__ = ["listed", "release", "released", "unknown"]
