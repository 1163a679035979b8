"""One cached route, or one app behind the middleware: what it stores, under which key, and what became of a response.

Thread rule: any thread, any loop.
Refuses to know: frameworks, how the app is called, and the rules of HTTP (cpp/core/http decides).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stillwarm import _core
from stillwarm._durations import shown
from stillwarm._types import FOREVER, Settings, tag_names
from stillwarm.errors import ConfigError
from stillwarm.web import _counts
from stillwarm.web.facts import (
    AUTHORIZATION,
    OWN_ETAG,
    PRIVATE,
    AppRaisedError,
    Response,
    ServerSideError,
    Stored,
    Unstored,
    Variants,
    digest,
    freshened,
    header,
    native,
    stored_of,
    text,
    weigh,
)

UNSET: Final = -1
PASS_FOR: Final = 10.0  # s for which an answer that could not be stored is not waited for
_MOST_PASSING: Final = 1_024

_log = logging.getLogger("stillwarm")
_lock = threading.Lock()  # of the counts and pauses of all fronts; nothing but dicts is touched under it


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True)
class Rules:
    """What a route or an app declares. Durations in ns; UNSET: not given."""

    type: str = "http"
    ttl: int = UNSET
    stale_while_revalidate: int = UNSET
    stale_if_error: int = UNSET
    absent_ttl: int = 0
    early: float = 0.0
    keep: int = 0
    jitter: float = 0.0
    is_route: bool = False
    ttl_wins: bool = False
    obeys_request: bool = True
    per_user: bool = False
    declares_cookies: bool = False
    heuristic: bool = False
    ignore_cookies: tuple[str, ...] = ()
    debug_token: str = ""
    max_body: int = 8 * 1024 * 1024
    max_key: int = 2048
    unless: Callable[[Any], bool] | None = None
    classify: Any = None
    stale_on: Any = None


def _is_private(cache: Any, type_name: str) -> bool:
    given = {**cache._defaults, **cache._types.get(type_name, {})}
    return bool(given.get("private", False))


class Front:
    """The cache as one route or app uses it."""

    def __init__(self, cache: Any, rules: Rules, name: str, *, asgi: bool) -> None:
        self.cache = cache
        self.rules = rules
        self.asgi = asgi
        self.scope = cache._new_scope(rules.type, name, True)
        self.settings = Settings(
            ttl=FOREVER,
            early=rules.early,
            keep=rules.keep,
            jitter=rules.jitter,
            classify=self._kind,
            unless=lambda value: isinstance(value, Unstored),
            weigh=weigh,
            private=bool(rules.per_user) or _is_private(cache, rules.type),
        )
        cache._set_durations(self.scope, self.settings)
        self.core = _core.HttpFront(
            cache,
            self.scope,
            # The middleware's own: what a route stores is served only behind all that stands before the route.
            prefix=f"cache:{rules.type}:" if rules.is_route else f"cache:{rules.type}:app:",
            asgi=asgi,
            ignored_cookies=list(rules.ignore_cookies),
            max_key=rules.max_key,
            debug_token=rules.debug_token,
            ttl=rules.ttl,
            stale_while_revalidate=rules.stale_while_revalidate,
            stale_if_error=rules.stale_if_error,
            absent_ttl=rules.absent_ttl,
            ttl_wins=rules.ttl_wins,
            obeys_request=rules.obeys_request,
            per_user=rules.per_user,
            declares_cookies=rules.declares_cookies,
            heuristic=rules.heuristic,
            stored=Stored,
            variants=Variants,
            digest=digest,
        )
        self.private = [native(PRIVATE, asgi)] if rules.per_user else []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._passing: OrderedDict[str, float] = OrderedDict()
        self._warned: set[str] = set()
        _counts.register(cache, self)

    # ---------------------------------------------------------------------------------------------- what is passed

    def passes(self, key: str) -> bool:
        """Whether an answer under this key could not be shared a moment ago: then nobody waits for another's."""
        until = self._passing.get(key)
        return until is not None and until > time.monotonic()

    def note_passing(self, key: str) -> None:
        with _lock:
            self._passing[key] = time.monotonic() + PASS_FOR
            self._passing.move_to_end(key)
            if len(self._passing) > _MOST_PASSING:
                self._passing.popitem(last=False)

    def forget_passing(self, key: str) -> None:
        if key in self._passing:
            with _lock:
                self._passing.pop(key, None)

    def count(self, outcome: str, reason: str) -> None:
        with _lock:  # one more is three steps
            self.counts[outcome, reason] += 1

    def warn(self, what: str, detail: object = "") -> None:
        """Counts what went wrong and was passed through; the first of its kind is logged."""
        self.count("warning", what)
        if what not in self._warned:
            self._warned.add(what)
            _log.warning(
                "%s: %s; requests pass through, and this is logged once", what, detail, exc_info=what == "internal"
            )

    # ----------------------------------------------------------------------------------------- what becomes of a load

    def _kind(self, error: BaseException) -> str:
        if isinstance(error, ServerSideError):
            return "transient"
        if isinstance(error, AppRaisedError):
            cause = error.error
            if self.rules.classify is not None:
                return str(self.rules.classify(cause))
            if self.rules.stale_on is not None:
                on = self.rules.stale_on
                matches = isinstance(cause, on) if isinstance(on, (type, tuple)) else on(cause)
                return "transient" if matches else "fatal"
            return "transient"  # to the client it would be a 500
        return "fatal"

    def judge(self, ask: Any, response: Response) -> Any:
        """What a load brought: Stored or Variants, which are stored, or Unstored. Remembers its durations in `ask`.

        Raises:
            ServerSideError: the app answered 5xx, and a stale answer may stand in.
        """
        question = ask.question
        after = self.core.after(question, response.status, response.headers)
        kept: Stored | None = ask.kept
        if response.status == 304 and kept is not None and ask.asked_conditionally:
            fields = freshened(kept, response.headers, 0, 0).headers
            aged = [pair for pair in response.headers if text(pair[0]).lower() == "age"]
            after = self.core.after(question, kept.status, [*fields, *aged])
            flags = AUTHORIZATION if after["shared_with_authorization"] else 0
            stored = freshened(kept, response.headers, after["age"], flags)
            if after["store"]:
                return self._place(ask, stored, after)
            return Unstored(
                Response(stored.status, stored.line, list(stored.headers), stored.body), False, after["why"]
            )
        # A HEAD's answer is nobody else's. What nothing declares cacheable is not shared: it may depend on anything.
        # Nor what varies: only what is stored says for whom it is.
        declared = self.rules.ttl_wins and not after["vary"]
        shareable = after["shareable"] and response.body is not None and question.store and (after["store"] or declared)
        if after["transient_error"]:
            raise ServerSideError(Unstored(response, shareable and declared, after["why"]))
        if after["why"] == "malformed":
            self.warn("malformed header", f"Cache-Control: {header(response.headers, 'cache-control')!r:.200}")
        if response.body is None:
            return Unstored(response, False, response.why)
        if not after["store"] or not question.store:
            return Unstored(response, shareable, after["why"] or question.why)
        if is_cut_off(response):  # RFC 9111, 3.3
            return Unstored(response, False, "incomplete")
        if self.rules.unless is not None and self.rules.unless(ask.result(response)):
            return Unstored(response, shareable, "unless")
        flags = AUTHORIZATION if after["shared_with_authorization"] else 0
        return self._place(ask, stored_of(response, after["age"], flags, self.asgi, self.rules.per_user), after)

    def _place(self, ask: Any, stored: Stored, after: dict[str, Any]) -> Any:
        """The value for the flight's own key: the answer, or the record of a URI whose answers vary."""
        ask.durations = (*after["durations"], self.rules.keep)
        question, names = ask.question, after["vary"]
        if question.key != question.primary:  # one more variant
            known = _core.peek(self.cache, self.scope, question.primary)
            if isinstance(known, Variants) and not set(names) <= set(known.names):
                # It depends on more than was known: the next load makes a new record.
                _core.invalidate_key(self.cache, self.scope, question.primary, False)
            return stored
        if not names:
            return stored
        known = ask.variants
        if known is not None and set(names) <= set(known.names):
            return known._replace(text=self.core.variant_text(ask.raw, list(known.names)), stored=stored)
        return Variants(names, secrets.token_hex(8), self.core.variant_text(ask.raw, list(names)), stored)

    def life(self, key: str) -> int:
        """ns for which the entry is fresh, negative when it is stale; 0 if there is none."""
        life = _core.life(self.cache, self.scope, key)
        return 0 if life is None else life[1]

    def validators(self, kept: Stored | None) -> list[tuple[str, str]]:
        """The conditional fields that ask the app whether what is stored still holds (RFC 9111, 4.3.1)."""
        if kept is None or kept.status != 200:
            return []
        found = []
        if kept.etag and not kept.flags & OWN_ETAG:
            found.append(("If-None-Match", kept.etag))
        if kept.last_modified:
            found.append(("If-Modified-Since", kept.last_modified))
        return found


def is_cut_off(response: Response) -> bool:
    """Whether the body is not as long as its Content-Length says."""
    size = header(response.headers, "content-length")
    return size.isdecimal() and response.body is not None and int(size) != len(response.body)


def tags_of(tags: Any, *args: Any, **kwargs: Any) -> list[str]:
    return tag_names(tags(*args, **kwargs)) if callable(tags) else list(tags)


def checked_invalidates(value: Any) -> Callable[..., list[dict[str, str]]]:
    """`invalidates=` as a function of the view's arguments: what to pass to `cache.invalidate`, item by item."""

    def items(given: Iterable[Any]) -> list[dict[str, str]]:
        intents = []
        for item in given:
            if isinstance(item, str) and item:
                intents.append({"tag": item})
            elif isinstance(item, dict) and len(item) == 1 and set(item) <= {"tag", "type", "key", "pattern"}:
                intents.append({name: str(getattr(what, "value", what)) for name, what in item.items()})
            else:
                raise ConfigError(
                    f"invalidates={shown(item)}: accepted: a tag, or a dict such as {{'type': 'dashboard'}} "
                    "(tag, type, key, pattern), in a list or from a callable of the view's arguments"
                )
        return intents

    if value is None:
        return lambda *_, **__: []
    if callable(value):
        return lambda *args, **kwargs: items(value(*args, **kwargs))
    fixed = items([value] if isinstance(value, (str, dict)) else value)
    return lambda *_, **__: fixed


def checked_names(value: Any, argument: str) -> tuple[str, ...]:
    """Names of headers or cookies."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(n, str) and n for n in value):
        raise ConfigError(f"{argument}={shown(value)}: accepted: a list of names (str)")
    return tuple(value)
