"""What a route or the middleware may be told, checked and put into `Rules`.

Thread rule: immutable results.
Refuses to know: what follows from them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from stillwarm import _core
from stillwarm._durations import duration, shown, size
from stillwarm._types import TYPE_OPTIONS, Duration, check_names, resolve, ttl_ns
from stillwarm.errors import ConfigError
from stillwarm.web.front import UNSET, Rules, checked_names

if TYPE_CHECKING:
    from stillwarm._cache import Cache


class MiddlewareOptions(TypedDict, total=False):
    """What `ResponseCache` takes beside app and cache: see `middleware_rules`."""

    type: str
    ttl: Duration | None
    stale_while_revalidate: Duration
    stale_if_error: Duration
    absent_ttl: Duration
    early_refresh: float | Literal["auto"] | None
    keep: Duration
    heuristic: bool
    ignore_cookies: Sequence[str]
    debug_token: str
    max_body: int | str
    max_key: int | str
    unless: Callable[[Any], bool] | None
    classify: Callable[[BaseException], str] | None
    stale_on: Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...]


class RouteOptions(MiddlewareOptions, total=False):
    """What `cache_response` takes beside its type."""

    jitter: float
    key: str | Callable[..., str] | None
    per_user: bool | Callable[..., Any] | None
    vary_on: Sequence[str] | Callable[..., Any] | None
    tags: Sequence[str] | Callable[..., Sequence[str]] | None
    invalidates: str | Sequence[str | dict[str, Any]] | Callable[..., Any] | None


MIDDLEWARE: Final = MiddlewareOptions.__optional_keys__
ROUTE: Final = RouteOptions.__optional_keys__


class CacheType(str, enum.Enum):
    """Five types that APIs often have, with their times to live; users define their own with `cache.define`.

    Attributes:
        DASHBOARD: 5 minutes.
        SEARCH: 1 hour.
        USER: 30 minutes.
        PRODUCT: 2 hours.
        ANALYTICS: 10 minutes.
    """

    DASHBOARD = "dashboard"
    SEARCH = "search"
    USER = "user"
    PRODUCT = "product"
    ANALYTICS = "analytics"

    @property
    def ttl(self) -> int:
        """Seconds."""
        return {"dashboard": 300, "search": 3600, "user": 1800, "product": 7200, "analytics": 600}[self.value]


def type_name(value: Any) -> str | None:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"type={shown(value)}: accepted: the name of a type")
    return value


def define_types(cache: Cache) -> None:
    """The five types of `CacheType`, where the cache does not define them otherwise."""
    for kind in CacheType:
        if kind.value not in cache._types:
            cache.define(kind.value, ttl=kind.ttl)


def middleware_rules(cache: Cache, options: Mapping[str, Any]) -> Rules:
    """The rules of `ResponseCache`.

    The options are those of `ResponseCache`.
    """
    if not isinstance(cache, _core.CacheBase):
        raise ConfigError(f"cache={shown(cache)}: accepted: a stillwarm.Cache")
    check_names(options, MIDDLEWARE, "ResponseCache")
    given = dict(options)
    kind = type_name(given.pop("type", None)) or "http"
    return Rules(type=kind, **_common(given))


def route_rules(cache: Cache, kind: str | None, options: dict[str, Any], where: str) -> Rules:
    """The rules of a decorated route: its own options, then its type's, then the Cache's."""
    check_names(options, ROUTE, where)
    define_types(cache)
    if kind is not None and kind not in cache._types:
        known = ", ".join(map(repr, cache._types))
        raise ConfigError(f"type={shown(kind)}: accepted: {known}; cache.define() makes more")
    levels = [options, cache._types.get(kind or "", {}), cache._defaults]
    merged: dict[str, Any] = {}
    for level in reversed(levels):
        merged.update({name: value for name, value in level.items() if name in ROUTE})
    if callable(merged.get("ttl")):
        raise ConfigError(f"ttl={shown(merged['ttl'])}: a route's ttl is a duration")
    resolve([{n: v for n, v in merged.items() if n in TYPE_OPTIONS}], where)  # checks values, and that there is a ttl
    return Rules(type=kind or "http", is_route=True, ttl_wins=True, obeys_request=False, **_common(merged))


def _common(given: dict[str, Any]) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for name in ("ttl", "stale_while_revalidate", "stale_if_error"):
        if given.get(name) is not None or (name == "ttl" and name in given):
            rules[name] = ttl_ns(given[name], name)
    if rules.get("ttl") == 0:
        rules["ttl"] = UNSET
    for name in ("absent_ttl", "keep"):
        if given.get(name) is not None:
            rules[name] = duration(given[name], name, allow_none=True, allow_zero=True) or 0
    if given.get("max_body") is not None:
        rules["max_body"] = size(given["max_body"], "max_body")
    if given.get("max_key") is not None:
        rules["max_key"] = size(given["max_key"], "max_key")
    rules["ignore_cookies"] = checked_names(given.get("ignore_cookies"), "ignore_cookies")
    token = given.get("debug_token") or ""
    if not isinstance(token, str) or (token and len(token) < 16):
        raise ConfigError("debug_token: accepted: a str of 16 characters or more")
    rules["debug_token"] = token
    rules["heuristic"] = bool(given.get("heuristic", False))
    for name in ("unless", "classify", "stale_on"):
        value = given.get(name)
        if value is not None:
            if not callable(value) and not (name == "stale_on" and isinstance(value, tuple)):
                raise ConfigError(f"{name}={shown(value)}: accepted: a callable")
            rules[name] = value
    early = given.get("early_refresh")
    if early is not None:
        settings = resolve([{"ttl": 1, "early_refresh": early}], "early_refresh")
        rules["early"] = settings.early
    return rules


__all__ = ["CacheType", "define_types", "middleware_rules", "route_rules", "type_name"]
