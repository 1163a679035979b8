"""What `cache_response` was told about one route, and the front that follows from it for each cache.

Thread rule: any thread.
Refuses to know: frameworks. A view's arguments come as keywords.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import string
import threading
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from stillwarm._durations import shown
from stillwarm._types import check_names
from stillwarm.errors import ConfigError
from stillwarm.web.facts import digest
from stillwarm.web.front import Front, checked_invalidates, checked_names, tags_of
from stillwarm.web.options import ROUTE, route_rules, type_name

_lock = threading.Lock()  # while a front is made; no view, key or other code of the app runs under it


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


class Plan:
    """A route as its decorator describes it."""

    def __init__(self, name: str, type: Any, options: dict[str, Any], *, asgi: bool) -> None:
        self.where = f"cache_response of {name}"
        check_names(options, ROUTE, self.where)
        self.name = name
        self.type = type_name(type if type is not None else options.pop("type", None))
        self.asgi = asgi
        template = options.get("key")
        self.has_template = isinstance(template, str)
        self.key = checked_key(options.pop("key", None))
        fields = string.Formatter().parse(template) if isinstance(template, str) else ()
        self.key_names = [name for _, name, _, _ in fields if name is not None]
        per_user = options.pop("per_user", None)
        if per_user is not None and per_user is not True and per_user is not False and not callable(per_user):
            raise ConfigError(f"per_user={shown(per_user)}: accepted: True, or a callable that returns who asks (str)")
        self.per_user = per_user or None
        vary_on = options.pop("vary_on", None)
        self.vary_call = vary_on if callable(vary_on) else None
        names = () if callable(vary_on) else checked_names(vary_on, "vary_on")
        self.vary_on = tuple(f"cookie:{n[7:]}" if n.lower().startswith("cookie:") else n.lower() for n in names)
        self.declares = vary_on is not None or self.per_user is not None
        tags = options.pop("tags", None)
        self.tags = tags if callable(tags) else tags_of(tags or ())
        self.writes = "invalidates" in options
        self.invalidates = checked_invalidates(options.pop("invalidates", None))
        self.options = options
        self._fronts: weakref.WeakKeyDictionary[Any, weakref.ref[Front]] = weakref.WeakKeyDictionary()

    def check_key(self, view: Callable[..., Any]) -> None:
        """Whether the view has the arguments that the template of the key names.

        Raises:
            ConfigError: it has not.
        """
        parameters = inspect.signature(view).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        for name in self.key_names:
            if name not in parameters:
                has = ", ".join(map(repr, parameters)) or "it has none"
                raise ConfigError(f"{self.where}: key= names {name!r}, and the view's arguments are: {has}")

    def found(self, cache: Any) -> Front | None:
        """The front of this route for a cache, if it is made already."""
        ref = self._fronts.get(cache)
        return None if ref is None else ref()

    def front(self, cache: Any, keep: list[Front]) -> Front:
        """The front of this route for a cache; made when first asked for, and then kept by who owns the cache: `keep`.

        Raises:
            ConfigError: an unknown type, no ttl, a value that is not accepted.
        """
        with _lock:
            front = self.found(cache)
            if front is None:
                options = self.options
                if self.writes and self.type is None and "ttl" not in options and "ttl" not in cache._defaults:
                    options = {"ttl": 0, **options}  # a route that only writes has nothing to store
                rules = route_rules(cache, self.type, options, self.where)
                rules = dataclasses.replace(rules, per_user=self.per_user is not None, declares_cookies=self.declares)
                front = Front(cache, rules, self.name, asgi=self.asgi)
                keep.append(front)
                self._fronts[cache] = weakref.ref(front)  # weak: a front holds its cache, and routes outlive apps
            return front

    def own_key(self, arguments: dict[str, Any], given: dict[str, Any] | None = None) -> str | None:
        """The route's own key; it looks like no URI, and like no key with something behind it.

        `given` is what else the route is called with, such as defaults: for a template, which names what it takes.
        """
        if self.key is None:
            return None
        if self.has_template and given:
            arguments = {**given, **arguments}
        key = str(self.key(**arguments)).encode("utf-8", "backslashreplace").decode().replace("~", "~~")
        return f"key:{key}" if key.startswith(("GET:", "app:", "key:")) else key

    def is_key_of(self, key: str, question: Any) -> bool:
        """Whether a refresh that was started for a key is about what its request asks: a session may have ended."""
        primary = str(question.primary)
        return key == primary or key.startswith(f"{primary}~")

    def part(self, front: Front, raw: Any, user: Any, varies: Any) -> str | None:
        """What the key depends on besides the URI, without telling what it is."""
        if not self.declares:
            return None
        text = ""
        if self.per_user is True:
            text += front.core.variant_text(raw, ["authorization", "cookie"])
        elif self.per_user is not None:
            check_text(user, f"{self.where}: per_user")
            text += "user-" if user is None else f"user={str(user)!r}\n"
        if self.vary_on:
            text += front.core.variant_text(raw, [name for name in self.vary_on if not name.startswith("cookie:")])
            wanted = [name[7:] for name in self.vary_on if name.startswith("cookie:")]
            if wanted:
                text += cookies(front.core.variant_text(raw, ["cookie"]), wanted)
        if self.vary_call is not None:
            check_text(varies, f"{self.where}: vary_on")
            text += f"vary={varies!s}"
        return digest(text.encode("utf-8", "surrogatepass")) if text else None

    def tag_names(self, arguments: dict[str, Any]) -> Callable[[], list[str]]:
        return lambda: tags_of(self.tags, **arguments)


def check_text(value: Any, what: str) -> None:
    kind: Any = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        # Its text would be an address, which the next user's object may have.
        raise ConfigError(f"{what} is {shown(value)}; accepted: what str() tells from others")


def cookies(text: str, wanted: list[str]) -> str:
    """The named cookies of a Cookie header, as a text that tells absent from empty.

    All of a name, in their order: frameworks differ in which of them they take.
    """
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for one in text.partition("=")[2].rstrip("\n").split(";"):
        name, has_value, value = one.strip().partition("=")
        if name.strip() in found:
            found[name.strip()].append(f"{has_value}{value}")
    return "".join(f"{name}{';'.join(values) or '-'}\n" for name, values in found.items())


def checked_key(key: Any) -> Callable[..., str] | None:
    """`key=` as a function of the view's arguments: a template such as "product:{product_id}", or a callable."""
    if key is None or callable(key):
        return key  # type: ignore[no-any-return]
    if not isinstance(key, str) or not key:
        raise ConfigError(f"key={shown(key)}: accepted: a template such as 'product:{{product_id}}', or a callable")
    try:
        fields = [(literal, name) for literal, name, _, _ in string.Formatter().parse(key)]
    except ValueError as error:
        raise ConfigError(f"key={shown(key)}: {error}") from None

    def made(**arguments: Any) -> str:
        parts = []
        for literal, name in fields:
            parts.append(literal)
            if name is not None:
                if name not in arguments:
                    raise ConfigError(f"key={shown(key)}: the view has no argument {name!r}: {', '.join(arguments)}")
                value = arguments[name]
                check_text(value, f"key={shown(key)}: {name}")
                parts.append(quote(str(value), safe=""))
        return "".join(parts)

    return made
