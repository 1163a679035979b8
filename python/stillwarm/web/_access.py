"""Who may use the management endpoints: a token, or what a callable says; and that a browser was not tricked into it.

Thread rule: immutable after construction; the user's callable runs where the adapter calls it.
Refuses to know: what is asked for. The token itself: only its digest is kept, so nothing can show it.

A token travels in `Authorization: Bearer`, which no other site can make a browser send. What a callable looks at may
be a cookie, which every site can make a browser send; then a change needs the header `X-Stillwarm: 1` (a form cannot
set it, and a script of another site only after a preflight that nobody grants here) and must not come from elsewhere
by its own word: Sec-Fetch-Site and Origin. A proxy in front has to keep the Host header.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from stillwarm._durations import shown
from stillwarm.errors import ConfigError
from stillwarm.web._exchange import Asked, Refused

SHORTEST_TOKEN: Final = 16

_ACCEPTED: Final = (
    f"a callable that gets the request and returns True, or a token of at least {SHORTEST_TOKEN} characters "
    f"that is sent as Authorization: Bearer"
)
_PORTS: Final = {"http": ":80", "https": ":443"}
_log = logging.getLogger("stillwarm")


class Access:
    """What `auth=` means.

    Raises:
        ConfigError: there is no auth, or it is neither a callable nor a token that is long enough.
    """

    __slots__ = ("_callable", "_digest")

    def __init__(self, auth: object) -> None:
        self._callable: Callable[[Any], Any] | None = None
        self._digest = b""
        if auth is None:
            raise ConfigError(f"auth=None: management is not mounted without it; accepted: {_ACCEPTED}")
        if isinstance(auth, str):
            # The value stays out of the error: a token that is too short may be the start of a real one.
            if len(auth) < SHORTEST_TOKEN:
                raise ConfigError(f"auth: a token of {len(auth)} characters; accepted: {_ACCEPTED}")
            if not auth.isprintable() or any(c.isspace() for c in auth):
                raise ConfigError(f"auth: a token with spaces or control characters; accepted: {_ACCEPTED}")
            self._digest = _digest(auth.encode())
        elif callable(auth):
            self._callable = auth
        else:
            raise ConfigError(f"auth={type(auth).__name__}: accepted: {_ACCEPTED}")

    @property
    def by_token(self) -> bool:
        """Whether a token decides, and not a callable."""
        return self._callable is None

    @property
    def is_async(self) -> bool:
        """Whether the callable has to be awaited, as far as can be told without calling it."""
        call = self._callable
        return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004

    def allows(self, request: Any) -> bool:
        """What the callable says of a framework's request: True and nothing else opens, an error refuses."""
        if self._callable is None:
            return False
        try:
            said = self._callable(request)
        except Exception:
            return _failed()
        if inspect.isawaitable(said):
            getattr(said, "close", lambda: None)()
            _log.error("the auth callable of the management endpoints must not be awaitable here: refused")
            return False
        return said is True

    async def aallows(self, request: Any, in_thread: Callable[..., Awaitable[Any]]) -> bool:
        """`allows` on an event loop: a coroutine function is awaited, a plain one runs in a thread."""
        if self._callable is None:
            return False
        try:
            said = self._callable(request) if self.is_async else await in_thread(self._callable, request)
            if inspect.isawaitable(said):
                said = await said
        except Exception:
            return _failed()
        return said is True

    def check(self, asked: Asked) -> None:
        """Raises Refused unless the request may see what is here: 401 for the token, 403 for the callable."""
        if self.by_token:
            scheme, _, given = asked.headers.get("authorization", "").partition(" ")
            # Digests: comparing takes the same time whatever the length, and any character has bytes.
            same = hmac.compare_digest(_digest(given.strip(" ").encode("latin-1", "replace")), self._digest)
            if not same or scheme.lower() != "bearer":
                raise Refused(
                    401,
                    "accepted: the header Authorization: Bearer with the token of this cache's management",
                    ("WWW-Authenticate", 'Bearer realm="stillwarm"'),
                )
        elif not asked.allowed:
            raise Refused(403, "the application's auth does not allow this request")

    def check_same_site(self, asked: Asked) -> None:
        """Raises Refused, 403, for a change that another site may have made the browser send."""
        if self.by_token:
            return
        headers = asked.headers
        if headers.get("x-stillwarm") != "1":
            raise Refused(403, "a change needs the header X-Stillwarm: 1, so that no other site can send it")
        site = headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise Refused(403, f"Sec-Fetch-Site {shown(site)}; accepted: same-origin, none")
        origin = headers.get("origin")
        if origin is not None and not _same_host(origin, headers.get("host", "")):
            raise Refused(403, f"Origin {shown(origin)} is not the host of this request")


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _failed() -> bool:
    _log.exception("the auth callable of the management endpoints failed: refused")
    return False


def _same_host(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _PORTS.get(parts.scheme)
    if port is None or not parts.netloc or not host:
        return False
    return parts.netloc.lower().removesuffix(port) == host.lower().removesuffix(port)
