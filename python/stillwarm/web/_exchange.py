"""A request to the management endpoints and its answer, as every framework can write them down.

Thread rule: immutable.
Refuses to know: frameworks, caches, and who may ask for what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stillwarm._durations import shown

BODY_LIMIT: Final = 65_536
"""Bytes of a request's body that are read at most; one more shows that it is too large."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""What the adapters route here, so that wrong methods get the answer of this module and not a framework's page."""

_SAFE: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# A JSON answer holds keys, which are whatever users sent: no browser shall find a tag in them, whatever it guesses.
_ESCAPES: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        method: upper case.
        path: below the prefix, percent-decoded: "/stats".
        query: the raw query string.
        headers: by lower-case name, as latin-1 text.
        body: at most BODY_LIMIT + 1 bytes of it.
        allowed: what the `auth` callable said; nobody looks at it where `auth` is a token.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    allowed: bool = False


@dataclass(frozen=True)
class Answer:
    """A response: status, headers, body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Refused(Exception):
    """The request is not served: what to answer instead."""

    def __init__(self, status: int, message: str, *headers: tuple[str, str], **more: Any) -> None:
        super().__init__(message)
        self.answer = answer({"status": "error", "message": message, **more}, status, *headers)


def answer(body: Any, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """A JSON answer."""
    text = json.dumps(body, separators=(",", ":"), default=str).translate(_ESCAPES)
    return raw(text.encode("ascii"), "application/json", _NOTHING, status, *headers)


def raw(body: bytes, content_type: str, policy: str, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """An answer of any kind; `policy` is its Content-Security-Policy."""
    return Answer(status, [("Content-Type", content_type), ("Content-Security-Policy", policy), *_SAFE, *headers], body)


def too_large(headers: Mapping[str, str]) -> bool:
    """Whether the request says itself that its body is over the limit: nobody needs to read it then."""
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > BODY_LIMIT)


def check_size(asked: Asked) -> None:
    """Raises Refused, 413, for a body over the limit."""
    if len(asked.body) > BODY_LIMIT or too_large(asked.headers):
        raise Refused(413, f"the body is over the limit; accepted: {BODY_LIMIT} bytes", ("Connection", "close"))


def checked_json(asked: Asked) -> dict[str, Any]:
    """The JSON object in the body; {} for none.

    Raises:
        Refused: 413 too large, 415 not JSON by its own word, 400 not a JSON object.
    """
    check_size(asked)
    if not asked.body:
        return {}
    kind = asked.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"Content-Type {shown(kind)}; accepted: application/json")
    try:
        body = json.loads(asked.body)
    except RecursionError:
        raise Refused(400, "the body is nested too deeply; accepted: a JSON object") from None
    except ValueError as error:  # also bytes that are no UTF-8
        raise Refused(400, f"the body is not JSON ({str(error)[:200]}); accepted: a JSON object") from None
    if not isinstance(body, dict):
        raise Refused(400, f"the body is {shown(body)}; accepted: a JSON object")
    return body


def bad_field(name: str, value: object, accepted: str) -> Refused:
    """A 400 that names a field, its value and what is accepted."""
    message = f"{name}={shown(value)}: accepted: {accepted}"
    return Refused(400, message, field=name, value=shown(value), accepted=accepted)


def text_field(name: str, value: object, where: str = "") -> str:
    """A text that the cache can take.

    Raises:
        Refused: it is none, empty, or has half a surrogate pair, which has no bytes.
    """
    if not isinstance(value, str) or not value:
        raise bad_field(where + name, value, "a str that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_field(where + name, value, "text that can be written in UTF-8") from None
    return value


def flag_field(name: str, value: object, where: str = "") -> bool:
    """A JSON bool.

    Raises:
        Refused: anything else.
    """
    if not isinstance(value, bool):
        raise bad_field(where + name, value, "true or false")
    return value
