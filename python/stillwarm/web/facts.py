"""What a response is to the cache: as the app gave it, as it is stored, and what of it is not.

Thread rule: immutable, but for `Response.close`, which its one owner calls.
Refuses to know: frameworks, and what may be stored (cpp/core/http decides).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from stillwarm import _core, codecs

Headers = Sequence[tuple[Any, Any]]  # pairs of str (WSGI) or of bytes (ASGI)

AUTHORIZATION: Final = 1  # flags of Stored, as in cpp/bindings/http_front.hpp
ASGI: Final = 2
OWN_ETAG: Final = 4

_OVERHEAD: Final = 600  # bytes of the tuples and small objects around a stored answer


class Stored(NamedTuple):
    """A stored answer. cpp/bindings/http_front.cpp reads it by position."""

    status: int
    line: str  # "200 OK"
    headers: tuple[tuple[Any, Any], ...]
    body: bytes
    etag: str
    last_modified: str
    at: int  # when it was stored, ns on the cache's clock
    age: int  # what it was old then, s
    flags: int


class Variants(NamedTuple):
    """Stands under the key of a URI whose answers vary: the first variant, and how the others are called.

    A new record has a new nonce, so that variants of before an invalidation are never found again.
    """

    names: tuple[str, ...]  # of request headers, lower case
    nonce: str
    text: str  # what the first variant's request had in them
    stored: Stored


def _packed(stored: Stored) -> tuple[Any, ...]:
    """A stored answer for a remote tier: its moment as time of day, which other hosts can compare theirs with."""
    at = time.time() - (_core.clock_now() - stored.at) / 1e9
    return tuple(stored._replace(at=int(at * 1e9)))


def _unpacked(fields: tuple[Any, ...]) -> Stored:
    """A clock that is behind the other host's makes an answer younger, never of the future (RFC 9111, 4.2.3)."""
    stored = Stored(*fields)
    return stored._replace(at=_core.clock_now() - max(0, int(time.time() * 1e9) - stored.at))


codecs.register(Stored, _packed, _unpacked, "stillwarm.http.answer")
codecs.register(
    Variants,
    lambda variants: (*variants[:3], _packed(variants.stored)),
    lambda fields: Variants(fields[0], fields[1], fields[2], _unpacked(fields[3])),
    "stillwarm.http.variants",
)


class Response(NamedTuple):
    """What the app answered. `body` is None where it was not gathered: it streams, or it is too large."""

    status: int
    line: str
    headers: list[tuple[Any, Any]]
    body: bytes | None
    why: str = ""  # why there is no body here: "streaming", "too-large"
    live: Any = None  # what the front needs to pass it on
    close: Callable[[], None] | None = None


class Unstored(NamedTuple):
    """A load's outcome that is not stored."""

    response: Response | None  # None: `error` was raised
    shareable: bool  # with those who asked for the same meanwhile
    why: str
    error: Exception | None = None


class AppRaisedError(Exception):
    """The app raised `error`: its own affair, which passes through unchanged.

    `shareable`: with those who asked for the same meanwhile.
    """

    def __init__(self, error: Exception, shareable: bool = False) -> None:
        super().__init__(repr(error))
        self.error = error
        self.shareable = shareable


class NoAnswerError(RuntimeError):
    """The app answered nothing, as one does whose client has gone."""


class ServerSideError(Exception):
    """The app answered 500, 502, 503 or 504, or a refresh got what is not stored: a stale answer may stand in.

    RFC 5861, 4.
    """

    def __init__(self, unstored: Unstored) -> None:
        super().__init__(f"the app answered {unstored.response.status if unstored.response else 500}")
        self.unstored = unstored


def text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def line_of(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def header(headers: Headers, name: str) -> str:
    """The first field of that name (lower case), or an empty text."""
    for key, value in headers:
        if text(key).lower() == name:
            return text(value)
    return ""


def etag_of(body: bytes) -> str:
    """A strong entity tag (RFC 9110, 8.8.3): equal bytes have equal tags in every process."""
    return f'"{digest(body)}"'


def storable(headers: Headers) -> list[tuple[Any, Any]]:
    """Without the fields of the connection, and those that each answer gets anew (RFC 9111, 3.1)."""
    named = {
        token.strip().lower()
        for key, value in headers
        if text(key).lower() == "connection"
        for token in text(value).split(",")
    }
    return [(k, v) for k, v in headers if _core.is_stored_field(text(k)) and text(k).lower() not in named]


PRIVATE: Final = ("Cache-Control", "private")  # of one user: not for the caches between here and there


def stored_of(response: Response, age: int, flags: int, asgi: bool, per_user: bool = False) -> Stored:
    """The answer as it is stored: with an ETag and a Content-Length; one user's says so to the caches behind us."""
    assert response.body is not None
    headers = storable(response.headers)
    etag = header(headers, "etag")
    own: list[tuple[str, str]] = []
    if not etag and response.status == 200:
        etag = etag_of(response.body)
        flags |= OWN_ETAG
        own.append(("ETag", etag))
    if per_user and not header(headers, "cache-control"):
        own.append(PRIVATE)
    if not header(headers, "content-length") and response.status not in (204, 304):
        own.append(("Content-Length", str(len(response.body))))
    headers += [native(pair, asgi) for pair in own]
    return Stored(
        response.status,
        response.line,
        tuple((k, v) for k, v in headers),
        response.body,
        etag,
        header(headers, "last-modified"),
        _core.clock_now(),
        age,
        flags | (ASGI if asgi else 0),
    )


def freshened(stored: Stored, headers: Iterable[tuple[Any, Any]], age: int, flags: int) -> Stored:
    """The stored answer after the app said 304: its fields replace those of before (RFC 9111, 3.2)."""
    new = [(k, v) for k, v in storable(list(headers)) if not _core.is_kept_on_304(text(k))]
    replaced = {text(k).lower() for k, _ in new}
    kept = [(k, v) for k, v in stored.headers if text(k).lower() not in replaced]
    return stored._replace(
        headers=(*kept, *new), at=_core.clock_now(), age=age, flags=stored.flags & ~AUTHORIZATION | flags
    )


def with_marks(headers: Iterable[tuple[Any, Any]], marks: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The header fields with those of the cache. Cache-Status is a list; an X-Cache of a cache further in stays."""
    headers = list(headers)
    there = {text(name).lower() for name, _ in headers} - {"cache-status"}
    return [*headers, *(mark for mark in marks if text(mark[0]).lower() not in there)]


def native(pair: tuple[str, str], asgi: bool) -> tuple[Any, Any]:
    return (pair[0].lower().encode("latin-1"), pair[1].encode("latin-1")) if asgi else pair


def weigh(value: Any) -> int:
    """Bytes of a stored answer: body, header fields, and what holds them together."""
    if isinstance(value, Variants):
        return weigh(value.stored) + len(value.text) + 200
    if not isinstance(value, Stored):
        return 64
    return len(value.body) + sum(len(k) + len(v) + 120 for k, v in value.headers) + _OVERHEAD


def digest(data: bytes) -> str:
    """Names a variant or a user in a key without saying what it is: 128 bits, equal in every process."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
