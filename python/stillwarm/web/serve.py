"""How a request is answered by way of the cache, on a thread: `aserve` is its twin for coroutines.

Thread rule: any thread. The load of a route belongs to the request that leads (`inline`).
Refuses to know: frameworks. A front's caller says how the app is asked (`fetch`) and how a refresh starts (`again`).

    look (C++) -> a finished answer, or a question
    question   -> pass: straight to the app | lead: ask the app, judge, store | follow: wait, and take it if it fits
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from stillwarm import _core, _load
from stillwarm._landing import finish
from stillwarm._target import ABANDONED, FOLLOW, NOT_ASKED, RUNNING, TRANSIENT, Target, innermost
from stillwarm.errors import LoadTimeout, RecursiveLoadError
from stillwarm.web.facts import AppRaisedError, NoAnswerError, Response, ServerSideError, Stored, Unstored, Variants
from stillwarm.web.front import Front

MOST_REFRESHES: Final = 8  # background refreshes of routes at once, per process (rule H6)
TRIES: Final = 3  # how often a follower looks again when what it waited for was for somebody else
ONCE_MORE: Final = ("look", "reload")
GATEWAY_TIMEOUT: Final = b"504: only a stored answer was asked for, and there is none\n"

_refreshing: dict[int, Any] = {}  # the flights, by id
_lock = threading.Lock()


def take_turn(flight: Any) -> bool:
    """Whether one more background refresh may run. What a loop that is closed left behind does not count."""
    with _lock:
        if len(_refreshing) >= MOST_REFRESHES:
            for key, other in list(_refreshing.items()):
                if other.loop is not None and other.loop.is_closed():
                    del _refreshing[key]
        if len(_refreshing) >= MOST_REFRESHES:
            return False
        _refreshing[id(flight)] = flight
        return True


def end_turn(flight: Any) -> None:
    with _lock:
        _refreshing.pop(id(flight), None)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's refreshes do not run here
    _refreshing.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Ask(Target):
    """One request that wants an answer."""

    __slots__ = (
        "again",
        "asked_conditionally",
        "brought",
        "durations",
        "failed",
        "fetch",
        "front",
        "kept",
        "left",
        "looked",
        "question",
        "raw",
        "result",
        "started",
        "step",
        "tag_names",
        "variants",
    )

    inline = True

    def __init__(self, front: Front, raw: Any, question: Any, fetch: Callable[[list[tuple[str, str]]], Any]) -> None:
        self.call = None
        self.cache = front.cache
        self.settings = front.settings
        self.args = ()
        self.kwargs = {}
        self.front = front
        self.raw = raw
        self.question = question
        self.fetch = fetch
        self.again: Callable[[Ask, Any], None] | None = None
        self.result: Callable[[Response], Any] = lambda response: response
        self.tag_names: Callable[[], list[str]] = list
        self.looked: tuple[str | None, str | None] = (None, None)  # the route's own key, and what else it depends on
        self.durations: tuple[int, int, int, int] | None = None
        self.kept: Stored | None = None
        self.variants: Variants | None = None
        self.asked_conditionally = False
        self.brought: Any = None
        self.failed = False  # this very request's load
        self.step = -1
        self.left = 0
        self.started = _core.clock_now()

    def begin(self, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
        self.left = self.front.life(self.question.key)  # now: a refresh may be over before this request is answered
        found = _core.begin_key(self.cache, self.front.scope, self.question.key, count, False, asked)
        self.step = found[0]
        return found

    def begin_anew(self, count: bool) -> tuple[int, Any, Any]:
        found = super().begin_anew(count)
        self.step = found[0]
        return found

    def key(self) -> tuple[int, Any]:
        return self.front.scope, self.question.key

    def tags(self) -> list[str]:
        return self.tag_names()

    def start_refresh(self, flight: Any) -> None:
        if self.again is None or not take_turn(flight):
            _core.count_skipped_refresh(flight)
            finish(flight, ABANDONED, None)
            return
        try:
            self.again(self, flight)
        except BaseException:
            end_turn(flight)
            raise

    def prepare(self) -> list[tuple[str, str]]:
        """The conditional fields for the app, from what is kept of the key's last answer."""
        flight = innermost()
        kept = _core.kept(flight) if flight is not None else None
        if isinstance(kept, Variants):
            self.variants = kept
        self.kept = self.front.core.match(self.question, kept) if isinstance(kept, tuple) else None
        fields = self.front.validators(self.kept)
        self.asked_conditionally = bool(fields)
        return fields

    def load(self) -> Any:
        try:
            response = self.fetch(self.prepare())
        except Exception as error:
            raise self.raised(error) from error
        return self.judged(response)

    def raised(self, error: Exception) -> AppRaisedError:
        """What the app raised, for this request and for those who follow it."""
        self.failed = True
        return AppRaisedError(error, self.is_for_all(error))

    def is_for_all(self, error: Exception) -> bool:
        # An exception that carries an answer of its own, or that credentials met, says nothing about other requests.
        carries = getattr(error, "response", None) is not None or bool(getattr(error, "headers", None))
        carries = carries or isinstance(error, NoAnswerError)
        return not carries and (not self.question.authorization or self.front.rules.per_user)

    def judged(self, response: Response | Unstored) -> Any:
        try:
            if isinstance(response, Unstored):
                error = response.error
                shareable = response.shareable and error is not None and self.is_for_all(error)
                value: Any = response._replace(shareable=shareable)
            else:
                value = self.front.judge(self, response)
            flight = innermost()
            if isinstance(value, Unstored) and flight is not None and flight.background:
                raise ServerSideError(value)  # a refresh that brought nothing to store: the next one waits a while
        except ServerSideError:
            self.failed = True
            raise
        self.brought = value
        return value


def in_pool(ask: Any, flight: Any, run: Callable[[], None]) -> None:
    """Starts a refresh on the load pool, in a context of its own: frameworks keep the first request's in theirs."""
    drop = functools.partial(refresh_ended, flight)
    if not contextvars.Context().run(ask.cache._pool.submit, run, drop):
        _core.count_skipped_refresh(flight)
        drop()


def refresh_ended(flight: Any) -> None:
    """Whatever a refresh came to: one that brought nothing is not tried again at once."""
    end_turn(flight)
    if flight.state == RUNNING:
        _core.fail(flight, TRANSIENT)
        finish(flight, ABANDONED, None)


def first_step(front: Front, ask: Ask) -> str | None:
    """Why the request goes straight to the app, or None: it may wait for the cache."""
    question = ask.question
    if not front.cache._enabled:
        return "off"
    if not question.look:
        if question.why == "key-too-long":
            front.warn("key over the limit", question.primary[:200])
        return str(question.why)
    if front.passes(question.key):
        return "recently-passed"
    # What is not stored (HEAD, a range, no-store) is not loaded for others either.
    if not question.store and _core.peek(front.cache, front.scope, question.key) is _core.MISSING:
        return str(question.why) or "head"
    return None


def settle(front: Front, ask: Ask, value: Any) -> tuple[str, Any]:
    """What this request does with what the cache gave it.

    Returns:
        ("stored", Stored), ("own", Unstored): what this very request brought, ("shared", Unstored), ("look", None): the
        answer is for another variant, ("reload", None): it does not do for this request; or ("pass", reason).
    """
    question = ask.question
    if isinstance(value, Unstored):
        if value is ask.brought:
            is_304 = value.response is not None and value.response.status == 304  # to what this client has
            if not is_304 and not value.shareable and not question.authorization and question.store:
                front.note_passing(question.key)
            return "own", value
        if value.shareable and not question.authorization:
            return "shared", value
        if value.why == "authorization" and not question.authorization:
            return "look", None  # what one with credentials got says nothing about others
        return "pass", value.why
    if isinstance(value, Variants):
        question.variant = front.core.variant_text(ask.raw, list(value.names))
    stored = front.core.match(question, value)
    if stored is None:
        return "look", None
    use = front.core.may_use(question, stored, ask.left if ask.brought is None else front.life(question.key))
    if use == 2:
        return "pass", "authorization"
    if use == 1 and ask.brought is None:
        return "reload", None
    return "stored", stored


def label_of(front: Front, ask: Ask, stored: Stored) -> tuple[str, int, bool]:
    """X-Cache, ns for which the answer is fresh, and whether another request's load brought it."""
    if ask.brought is not None or (ask.step == FOLLOW and stored.at >= ask.started):
        left = front.life(ask.question.key) or (ask.durations or (0,))[0]
        return "MISS", left, ask.brought is None
    return ("HIT" if ask.left >= 0 else "STALE"), ask.left, False


def respond(front: Front, ask: Ask) -> tuple[str, Any]:
    """Answers the request.

    Returns:
        ("answer", what front.core.render made), ("response", (Response, marks)): the app's own answer with X-Cache and
        Cache-Status; or ("pass", reason): the caller asks the app itself.

    Raises:
        Exception: what the app raised, unchanged.
    """
    try:
        reason = first_step(front, ask)
        if reason is not None:
            return "pass", reason
        anew = ask.question.reload
        for _ in range(TRIES):
            value = _load.reload(ask) if anew else _load.run(ask)
            kind, what = taken(front, ask, value)
            if kind not in ONCE_MORE:
                break
            anew = anew or kind == "reload"
        else:
            return "pass", "variants"
    except Exception as error:
        kind, what = failed(front, ask, error)
    if kind == "raise":
        raise what
    return kind, what


def taken(front: Front, ask: Ask, value: Any) -> tuple[str, Any]:
    """What becomes of the request with what the cache gave it: as `respond`, or ("raise", an exception), or ONCE_MORE.

    "look": what there was is for somebody else, and the request looks again; "reload": it needs a load of its own.
    """
    kind, what = settle(front, ask, value)
    if kind == "look":
        found = front.core.look(ask.raw, *ask.looked)
        if isinstance(found, tuple):
            return "answer", found
        ask.question = found
    return (kind, None) if kind in ONCE_MORE else rendered(front, ask, kind, what)


def failed(front: Front, ask: Ask, error: Exception) -> tuple[str, Any]:
    """What becomes of a request whose load raised, and no stale answer could stand in: as `taken`."""
    if isinstance(error, AppRaisedError):
        return ("raise", error.error) if error.shareable or ask.failed else ("pass", "error")
    if isinstance(error, ServerSideError):
        if ask.failed:
            return rendered(front, ask, "own", error.unstored)
        if not error.unstored.shareable or ask.question.authorization:
            return "pass", "error"
        return rendered(front, ask, "shared", error.unstored)
    if isinstance(error, LoadTimeout):  # another's load takes too long
        return "pass", "timeout"
    if isinstance(error, RecursiveLoadError):  # it waits for this very request
        return "pass", "recursive"
    front.warn("internal", repr(error))
    return "pass", "internal"


def rendered(front: Front, ask: Ask, kind: str, what: Any) -> tuple[str, Any]:
    question, forwards = ask.question, _core.Forward
    if kind == "pass":
        return "pass", what
    if kind == "stored":
        label, left, collapsed = label_of(front, ask, what)
        hit = label != "MISS"
        if not hit:
            front.forget_passing(question.key)
        forward = forwards.NONE if hit else forwards.REQUEST if question.reload else forwards.URI_MISS
        if not hit and question.key != question.primary:
            forward = forwards.VARY_MISS
        front.count(label.lower(), "collapsed" if collapsed else "")
        in_cache = not hit and not collapsed and _core.peek(front.cache, front.scope, question.key) is not _core.MISSING
        return "answer", front.core.render(question, what, left, label, hit, forward, in_cache, collapsed)
    unstored: Unstored = what
    front.count("bypass" if unstored.why else "miss", unstored.why)
    if unstored.response is None:
        return "raise", unstored.error or RuntimeError("no answer")
    label = "BYPASS" if unstored.why else "MISS"
    marks = [*front.core.marks(question, label, forwards.URI_MISS, False, unstored.why), *front.private]
    response = unstored.response
    if kind == "shared":  # the object itself is its own request's: hooks and background tasks go with it
        response = response._replace(live=None, close=None)
    return "response", (response, marks)


def stored_only(ask: Ask, timeout: Callable[[], Response]) -> tuple[str, Any]:
    """only-if-cached: a stored answer, or 504 (RFC 9111, 5.2.1.7)."""
    front, question = ask.front, ask.question
    value = _core.peek(front.cache, front.scope, question.key) if question.look else None
    stored = front.core.match(question, value) if isinstance(value, tuple) else None
    left = front.life(question.key)
    if stored is not None and front.core.may_use(question, stored, left) == 0:
        label = "HIT" if left >= 0 else "STALE"
        front.count(label.lower(), "")
        return "answer", front.core.render(question, stored, left, label, True, _core.Forward.NONE, False, False)
    return "response", (timeout(), passed(front, question, "only-if-cached"))


def passed(front: Front, question: Any, reason: str) -> list[tuple[Any, Any]]:
    """The marks of an answer that went round the cache."""
    front.count("bypass", reason)
    forward = question.forward if question.forward != _core.Forward.NONE else _core.Forward.BYPASS
    return [*front.core.marks(question, "BYPASS", forward, False, reason), *front.private]
