"""The management endpoints of one cache, without a framework: what is asked in, what is answered out.

Thread rule: `handle` from any thread.
Refuses to know: Flask and FastAPI (`_blueprint`, `_router`), and how a request was authorised (`_access`).

| request                        | what it does                                                         | slow |
|--------------------------------|----------------------------------------------------------------------|------|
| GET /, /page.js ...            | the operator's page: files of the package, without any data in them  |      |
| GET /stats                     | counts in all and by type; reads no key                              |      |
| GET /health                    | state and alerts; 503 when DOWN, else 200                            | yes  |
| GET /alerts                    | the six alerts                                                       | yes  |
| GET /hot-keys?n=20             | the most used entries                                                | yes  |
| GET /metrics                   | for Prometheus; 501 without prometheus_client                        | yes  |
| GET /entry?key=                | what is stored; only with show_values=True                           | yes  |
| POST /invalidate/<type>        | all of a type                                                        |      |
| POST /invalidate-key           | {"key": ...}                                                         | yes  |
| POST /invalidate-tag           | {"tag": ...}                                                         |      |
| POST /invalidate-pattern       | {"pattern": ...}                                                     | yes  |
| POST /clear-all                | everything in this cache                                             |      |
| GET /idempotency-unknown?n=100 | idempotency keys whose outcome is unknown, without any answer        | yes  |
| POST /idempotency-release      | {"record": ...}: frees one, whose next request runs the handler      | yes  |
| POST /webhook                  | {"invalidate": [{"type": ...}, ...]}, signed; see webhook            | yes  |

Every POST that invalidates, the webhook aside, takes "stale": true, which keeps the values as stale ones. GET changes
nothing. What reads every entry or asks the database is slow: a framework with an event loop runs it in a thread.

With a token the page's own files are served without it, since a browser cannot send one when it opens a page; the page
asks for it and sends it with each request. With a callable the files need its True like everything else.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from stillwarm import _core
from stillwarm._durations import shown
from stillwarm.errors import ConfigError
from stillwarm.web import _unknown
from stillwarm.web import alerts as _alerts
from stillwarm.web._access import Access
from stillwarm.web._exchange import (
    Answer,
    Asked,
    Refused,
    answer,
    bad_field,
    check_size,
    checked_json,
    flag_field,
    raw,
    text_field,
)
from stillwarm.web._figures import cache_stats, hidden
from stillwarm.web.webhook import Webhook, sign_webhook

if TYPE_CHECKING:
    from stillwarm._cache import Cache

LONGEST_PATTERN: Final = 1024
MOST_WILDCARDS: Final = 32
MOST_KEYS: Final = 1000
MOST_INTENTS: Final = 1000
SLOW: Final = frozenset(
    {"/health", "/alerts", "/hot-keys", "/metrics", "/entry", "/invalidate-key", "/invalidate-pattern", "/webhook"}
    | {"/idempotency-unknown", "/idempotency-release"}
)

_INTENTS: Final = ("type", "key", "tag", "pattern")
_PAGE: Final = resources.files("stillwarm.web") / "page"
_PAGE_FILE: Final = re.compile(r"/[a-z][a-z0-9_-]*\.(js|css|svg)")
_KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_log = logging.getLogger("stillwarm")


def _tell_other_processes(cache: Cache) -> None:
    """Where prometheus_client adds up processes, each has to write its figures before another one is asked."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        try:
            from stillwarm import metrics
        except ModuleNotFoundError:
            return  # and /metrics answers 501
        metrics.register(cache, None)


class Management:
    """What `warm.management()` mounts.

    Args:
        cache: the cache; nothing outside of it is ever changed.
        auth: a callable that gets the framework's request and returns True (nothing else counts), or a token of at
            least 16 characters that comes as `Authorization: Bearer`. Required.
        prefix: where it is mounted.
        alerts: thresholds by name, see stillwarm.web.alerts; None: the defaults.
        webhook_secret: "whsec_..." switches the webhook on.
        show_values: whether `/entry` shows what is stored.

    Raises:
        ConfigError: there is no auth, or an argument is not accepted.
    """

    __slots__ = ("_alerts", "_routes", "_webhook", "access", "cache", "prefix")

    def __init__(
        self,
        cache: Cache,
        *,
        auth: str | Callable[[Any], Any] | None = None,
        prefix: str = "/api/cache",
        alerts: Mapping[str, Any] | None = None,
        webhook_secret: str | None = None,
        show_values: bool = False,
    ) -> None:
        self.access = Access(auth)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"prefix={shown(prefix)}: accepted: a path such as '/api/cache', without / at its end")
        if not isinstance(show_values, bool):
            raise ConfigError(f"show_values={shown(show_values)}: accepted: True or False")
        self.cache = cache
        self.prefix = prefix
        self._webhook = None if webhook_secret is None else Webhook(webhook_secret)
        self._alerts = _alerts.watch(cache, alerts)
        _tell_other_processes(cache)
        self._routes: dict[str, tuple[str, Callable[[Asked], Answer]]] = {
            "/stats": ("GET", self._stats),
            "/health": ("GET", self._health),
            "/alerts": ("GET", self._list_alerts),
            "/hot-keys": ("GET", self._hot_keys),
            "/metrics": ("GET", self._metrics),
            "/invalidate-key": ("POST", lambda asked: self._invalidate(asked, "key")),
            "/invalidate-tag": ("POST", lambda asked: self._invalidate(asked, "tag")),
            "/invalidate-pattern": ("POST", lambda asked: self._invalidate(asked, "pattern")),
            "/clear-all": ("POST", self._clear_all),
            "/idempotency-unknown": ("GET", lambda asked: _unknown.listed(self.cache, _count(asked, "100"))),
            "/idempotency-release": ("POST", self._release),
        }
        if show_values:
            self._routes["/entry"] = ("GET", self._entry)

    @property
    def shows_values(self) -> bool:
        """Whether there is `/entry`."""
        return "/entry" in self._routes

    @property
    def has_webhook(self) -> bool:
        """Whether there is `/webhook`."""
        return self._webhook is not None

    def handle(self, asked: Asked) -> Answer:
        """Answers; never raises."""
        try:
            if asked.path == "/webhook":
                return self._deliver(asked)
            if asked.path == "/" or _PAGE_FILE.fullmatch(asked.path):
                return self._page(asked)
            self.access.check(asked)
            serve: Callable[[Asked], Answer]
            if asked.path.startswith("/invalidate/"):
                method, serve = "POST", self._invalidate_type
            elif asked.path in self._routes:
                method, serve = self._routes[asked.path]
            else:
                raise Refused(404, f"there is no {shown(asked.path)} here")
            _check_method(asked, method)
            if method == "POST":
                self.access.check_same_site(asked)
            return serve(asked)
        except Refused as refused:
            return refused.answer
        except Exception:
            _log.exception("management: %s %r failed", asked.method, asked.path)
            return answer({"status": "error", "message": "this failed; see the application's log"}, 500)

    # ------------------------------------------------------------------------------------------------------ looking

    def _page(self, asked: Asked) -> Answer:
        if not self.access.by_token:
            self.access.check(asked)
        name = "index.html" if asked.path == "/" else asked.path[1:]
        try:
            content = (_PAGE / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise Refused(404, f"there is no {shown(asked.path)} here") from None
        _check_method(asked, "GET")
        return raw(content, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8", _PAGE_POLICY)

    def _stats(self, asked: Asked) -> Answer:
        self._alerts.look(self.cache, read_entries=False)
        return answer({"status": "success", "cache_stats": cache_stats(self.cache)})

    def _health(self, asked: Asked) -> Answer:
        """The cache's state; errors above their threshold make a HEALTHY one DEGRADED, other alerts are only listed."""
        alerts = self._alerts.look(self.cache)
        state = self.cache.state.value
        if state == "HEALTHY" and any(alert.active and alert.name == "errors" for alert in alerts):
            state = "DEGRADED"
        body = {"status": "error" if state == "DOWN" else "success", "state": state, "alerts": [*map(_shown, alerts)]}
        return answer(body, 503 if state == "DOWN" else 200)

    def _list_alerts(self, asked: Asked) -> Answer:
        return answer({"status": "success", "alerts": [*map(_shown, self._alerts.look(self.cache))]})

    def _hot_keys(self, asked: Asked) -> Answer:
        top = self.cache.top(_count(asked, "20"))
        rows = [{"key": hot.key, "type": hot.type, "hits": hot.hits, "bytes": hot.bytes} for hot in top]
        return answer({"status": "success", "hot_keys": rows})

    def _metrics(self, asked: Asked) -> Answer:
        try:
            from stillwarm import metrics
        except ModuleNotFoundError:
            raise Refused(501, "metrics need prometheus_client: pip install 'stillwarm[metrics]'") from None
        body, kind = metrics.render(self.cache, asked.headers.get("accept", ""))
        return raw(body, kind, "default-src 'none'")

    def _entry(self, asked: Asked) -> Answer:
        key = text_field("key", _parameter(asked, "key"))
        cache = self.cache
        for scope, stored, hits, size, state in _core.snapshot(cache, -1):
            if cache._readable(scope, stored) == key:
                value = _core.peek(cache, scope, stored)
                if value is _core.MISSING:
                    break
                text = _repr(value)
                entry = {
                    "key": key,
                    "type": cache._scopes[scope].type,
                    "state": ("fresh", "early", "stale", "failsafe", "gone")[state],
                    "hits": hits,
                    "bytes": size,
                    "python_type": type(value).__name__,
                    "value": hidden(text[:10_000]),
                    "truncated": len(text) > 10_000,
                }
                return answer({"status": "success", "entry": entry})
        raise Refused(404, f"there is no entry {shown(key)}")

    # ----------------------------------------------------------------------------------------------------- changing

    def _invalidate_type(self, asked: Asked) -> Answer:
        stale = _stale(_only(checked_json(asked), ("stale",)))
        name = asked.path.removeprefix("/invalidate/")
        if name not in self.cache._type_ids:
            known = list(self.cache._type_ids)
            raise Refused(404, f"there is no type {shown(name)}; accepted: {', '.join(known)}", types=known)
        return self._done("type", name, stale)

    def _invalidate(self, asked: Asked, intent: str) -> Answer:
        body = _only(checked_json(asked), (intent, "stale"))
        return self._done(intent, _target(intent, body.get(intent)), _stale(body))

    def _clear_all(self, asked: Asked) -> Answer:
        stale = _stale(_only(checked_json(asked), ("stale",)))
        if stale:
            self.cache.invalidate(all=True, stale=True)
        else:
            self.cache.clear()
        _log.info("management: cleared cache %r%s", self.cache.namespace, " (stale)" * stale)
        return answer({"status": "success", "intent": "all", "target": None, "stale": stale, "count": None})

    def _release(self, asked: Asked) -> Answer:
        return _unknown.released(self.cache, _only(checked_json(asked), ("record",)).get("record"))

    def _done(self, intent: str, target: str, stale: bool) -> Answer:
        count = self._apply(intent, target, stale)
        return answer({"status": "success", "intent": intent, "target": target, "stale": stale, "count": count})

    def _apply(self, intent: str, target: str, stale: bool) -> int | None:
        count = self.cache.invalidate(**{intent: target}, stale=stale)  # type: ignore[arg-type]
        _log.info("management: invalidated %s=%s%s", intent, shown(target), " (stale)" * stale)
        return count

    def _deliver(self, asked: Asked) -> Answer:
        if self._webhook is None:
            raise Refused(404, "there is no '/webhook' here")
        _check_method(asked, "POST")
        check_size(asked)
        id = self._webhook.check(asked)
        try:
            items = _only(checked_json(asked), ("invalidate",)).get("invalidate")
            if not isinstance(items, list) or not 1 <= len(items) <= MOST_INTENTS:
                raise bad_field("invalidate", items, f"a list of 1 to {MOST_INTENTS} objects")
            intents = [self._intent(item, f"invalidate[{i}].") for i, item in enumerate(items)]  # all, before any
            counts = [self._apply(*intent) for intent in intents]
        except BaseException:
            self._webhook.forget(id)
            raise
        return answer({"status": "success", "id": id, "counts": counts})

    def _intent(self, item: object, where: str) -> tuple[str, str, bool]:
        if not isinstance(item, dict):
            raise bad_field(where[:-1], item, 'an object such as {"tag": "..."}')
        named = [name for name in _INTENTS if name in item]
        if len(named) != 1:
            raise bad_field(where[:-1], item, f"exactly one of {', '.join(_INTENTS)}")
        intent = named[0]
        target = _target(intent, _only(item, (intent, "stale"), where)[intent], where)
        if intent == "type" and target not in self.cache._type_ids:
            raise bad_field(where + "type", target, ", ".join(self.cache._type_ids))
        return intent, target, _stale(item, where)


def _check_method(asked: Asked, method: str) -> None:
    accepted = ("GET", "HEAD") if method == "GET" else (method,)
    if asked.method not in accepted:
        allow = ", ".join(accepted)
        raise Refused(405, f"{asked.method} is not accepted here; accepted: {allow}", ("Allow", allow))


def _parameter(asked: Asked, name: str) -> str:
    try:
        return parse_qs(asked.query, max_num_fields=16).get(name, [""])[0]
    except ValueError:
        raise bad_field("query", asked.query, "at most 16 parameters") from None


def _count(asked: Asked, default: str) -> int:
    text = _parameter(asked, "n") or default
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_KEYS):
        raise bad_field("n", text, f"1 to {MOST_KEYS}")
    return int(text)


def _only(body: dict[str, Any], accepted: tuple[str, ...], where: str = "") -> dict[str, Any]:
    for name in body:
        if name not in accepted:
            raise bad_field(where + name[:80], body[name], f"no such field; the fields are {', '.join(accepted)}")
    return body


def _stale(body: dict[str, Any], where: str = "") -> bool:
    return flag_field("stale", body.get("stale", False), where)


def _target(intent: str, value: object, where: str = "") -> str:
    target = text_field(intent, value, where)
    if intent == "pattern":
        wildcards = sum(target.count(c) for c in "*?[")
        if len(target) > LONGEST_PATTERN or wildcards > MOST_WILDCARDS:  # each entry's key is matched against it
            accepted = f"at most {LONGEST_PATTERN} characters, {MOST_WILDCARDS} of them *, ? and ["
            raise bad_field(where + intent, target, accepted)
    return target


def _shown(alert: _alerts.Alert) -> dict[str, Any]:
    return {
        "name": alert.name,
        "active": alert.active,
        "crossings": alert.crossings,
        "value": None if alert.value is None else round(alert.value, 4),
        "threshold": alert.threshold,
        "raised": "below" if alert.below else "above",
        "message": alert.message,
    }


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a repr may do anything
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"


__all__ = ["Answer", "Asked", "Management", "sign_webhook"]
