"""Keys and values on their way to a remote tier and back: text keys, payloads, rows of a type's own table.

Thread rule: any thread. It runs the user's code: codecs, `project=`, `value=`.
Refuses to know: flights, requests' outcomes, who waits.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from stillwarm import _core, _keys
from stillwarm._types import FOREVER, ttl_ns
from stillwarm.errors import CodecError, KeyTypeError

if TYPE_CHECKING:
    from stillwarm._tier import Tier
    from stillwarm._types import Settings
    from stillwarm.codecs import Codec

DIRECT: Final = "direct"  # the type of the direct verbs in a tier: their keys are nobody else's
LOAD, SET, ADD, SWAP = range(4)  # Store::Mode of core/remote/remote_tier.hpp

Durations: TypeAlias = tuple[int, int, int, int]  # ttl, stale_while_revalidate, stale_if_error, keep in ns
# What a look-up found: status, body, columns, codec, negative, durations, fresh_left, tags, bytes, version
Row: TypeAlias = (
    "tuple[int, bytes | None, list[str | None] | None, int, bool, Durations, int, list[str] | tuple[()], int, str]"
)


class Place(NamedTuple):
    """Where a value is in the tier."""

    key: str
    type: str
    slot: int

    @property
    def sealed_as(self) -> str:
        return f"{self.type}\n{self.key}"


class Value(NamedTuple):
    """A value that was found, with what is left of its life."""

    value: Any
    negative: bool
    durations: Durations
    fresh_left: int
    tags: Sequence[str]
    weight: int
    version: str

    @property
    def stale(self) -> bool:
        """Not fresh, and may be returned while it is loaded anew."""
        return self.fresh_left <= 0 < self.fresh_left + self.durations[1]

    @property
    def servable(self) -> bool:
        """May be returned, if only in place of an error."""
        return self.fresh_left + max(self.durations[1], self.durations[2]) > 0


def place_of(tier: Tier, scope: int, key: Any) -> Place:
    """The text key, type and table of a key as memory has it.

    Raises:
        KeyTypeError: an argument has no text that is the same in every process.
    """
    cache = tier.cache
    of = cache._scopes[scope]
    if of.keyed:
        text, type_name = str(key), DIRECT if scope == 0 else of.type
    else:
        type_name = of.type
        items = (key,) if _core.is_single(cache, scope) else key
        try:
            text = _keys.readable(of.name, items, strict=True)
        except TypeError as error:
            raise KeyTypeError(
                f"{of.name}(): an argument cannot be part of a key in a remote tier ({error}); accepted: None, bool, "
                f"int, float, str, bytes, Enum, dates and times, Decimal, UUID, and tuple, list, dict, set, "
                f"dataclasses and pydantic models of these; or give key=, or leave it out with ignore= "
                f"(self: ignore=('self',))"
            ) from None
    return Place(storable(text), type_name, tier.slot_of(type_name))


def text_of(tier: Tier, target: Any) -> str | None:
    """The text key of what a call wants; None: it has none."""
    if not tier.in_parts:
        return None  # nobody asks for it
    try:
        return place_of(tier, *target.key()).key
    except (KeyTypeError, KeyError):
        return None


def storable(text: str) -> str:
    """The text as a database takes it: up to 200 bytes of UTF-8 without NUL, else its beginning and a digest."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = _keys.MAX_BYTES + 1
    if size <= _keys.MAX_BYTES and "\0" not in text:
        return text
    return _keys.digested(text)


def opened(tier: Tier, place: Place, row: Row, codec: Codec, settings: Settings | None) -> Value | None:
    """The value of a row that a look-up found; None: it cannot be read, which is a counted miss."""
    status, body, columns, codec_id, negative, durations, fresh_left, tags, size, version = row
    try:
        if status != 0:
            return unreadable(tier, _core.OPENED[status])
        if body is not None:
            if negative:
                value: Any = body.decode()
            elif not codec.matches(codec_id):
                return unreadable(tier, "codec")
            else:
                value = codec.decode(body)
            return Value(value, negative, durations, fresh_left, tags, size, version)
        if columns is None or place.type not in tier.tables:
            return unreadable(tier, "table")
        value = tier.tables[place.type][1].value_of(columns)
        durations = (0, 0, 0, 0) if settings is None else settings.durations(_ttl_of(settings, value))
        weight = sum(len(text) for text in columns if text is not None)
        return Value(value, False, durations, fresh_left, tags, weight, version)
    except CodecError as error:
        tier.say_once(logging.WARNING, f"decode {place.type}", "%s cannot be read back: %s", place.key, error)
        return unreadable(tier, "payload")


def _ttl_of(settings: Any, value: Any) -> int:
    """How long a value is fresh when it is loaded: plain columns do not say it."""
    return ttl_ns(settings.ttl(value), "the value returned by ttl=") if callable(settings.ttl) else settings.ttl


def unreadable(tier: Tier, why: str) -> Value | None:
    """Counts it; there is no value."""
    tier.undecodable[why] = tier.undecodable.get(why, 0) + 1
    return None


def stored(
    tier: Tier,
    place: Place,
    value: Any,
    codec: Codec,
    durations: Durations,
    tags: Sequence[str],
    *,
    mode: int = LOAD,
    born: str = "",
    expected: str = "",
    jitter: float = 0.0,
    negative: bool = False,
    arguments: Mapping[str, Any] | None = None,
    fresh_for: int | None = None,
    private: bool = False,
) -> tuple[_core.Request, int] | None:
    """A store request and the bytes that the value has; None: it is too large for the tier. `private`: no dictionary is
    trained with it.

    Raises:
        CodecError: the value cannot be serialised; names its path inside the value.
    """
    table = tier.tables[place.type][1] if place.slot and not negative else None
    columns: list[str | None] | None = None
    body = b""
    if table is not None:
        columns = table.row_of(value, arguments or {})
    if negative:
        body = str(value).encode("utf-8", "replace")
    elif table is None or table.value is None:
        body = codec.encode(value)
    if len(body) > tier.max_value:
        tier.undecodable["too_large"] = tier.undecodable.get("too_large", 0) + 1
        text = "%s has %d bytes and is not stored: max_value=%d"
        tier.say_once(logging.WARNING, f"large {place.type}", text, place.key, len(body), tier.max_value)
        return None
    payload = b""
    if body or table is None or table.value is None:
        codec_id = 0 if negative else codec.id
        payload = tier.dictionaries.seal(
            tier.namespace, place.type, place.sealed_as, body, codec_id, negative, durations, private or negative
        )
    ttl = durations[0] if fresh_for is None else fresh_for
    if ttl < FOREVER and jitter and fresh_for is None:
        ttl -= int(ttl * jitter * random.random())
    rest = max(durations[1], durations[2]) + durations[3]
    keep = FOREVER if FOREVER in (ttl, *durations[1:]) else min(FOREVER, ttl + rest)
    request = _core.store(place.slot, mode, place.key, place.type, payload, born, expected, tags, columns, ttl, keep)
    weight = len(payload) if payload else sum(len(text) for text in columns or () if text is not None)
    return request, weight
