"""Fuzzers: the envelope of stored values, the text of keys, the parser of header fields.

Each is held against what must be true of any input, and has a naive subject that breaks it.

    envelopes    bytes that were changed, cut, joined: what is opened is exactly what was sealed, or nothing
    keys         arguments of all canonical types, made to be mistaken for each other: equal texts are equal arguments
    headers      fields whose meaning is known because they were written from it: nothing that must not be stored is
                 answered from the store; and fields of any bytes: no error, and the app's answer arrives as it was

Thread rule: one thread.
Refuses to know: pytest, and how anything is encoded.
"""

from __future__ import annotations

import datetime
import decimal
import random
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import stillwarm.flask
from fronts import ask_wsgi
from stillwarm import Cache, _core, _keys

LARGEST = 1 << 20  # bytes that a payload may have when it is opened


class Outcome(NamedTuple):
    """What a fuzzer has seen; `wrong` says each with what repeats it."""

    cases: int
    told: str
    wrong: list[str]

    def __str__(self) -> str:
        return "\n        ".join([f"{self.cases:,} cases, {self.told}, {len(self.wrong)} wrong", *self.wrong[:3]])


# ---------------------------------------------------------------------------------------------------------- envelopes


class Envelope:
    """The product's."""

    @staticmethod
    def seal(key: str, payload: bytes, rng: random.Random) -> bytes:
        durations = tuple(rng.randrange(10**12) for _ in range(4))
        return _core.seal("fuzz", key, payload, rng.randrange(4), rng.random() < 0.1, durations, rng.choice((0, 100)))  # type: ignore[arg-type]

    @staticmethod
    def open(key: str, stored: bytes) -> bytes | None:
        status, _, _, _, payload = _core.open_envelope("fuzz", key, stored, LARGEST)
        return payload if status == 0 else None


class NaiveEnvelope:
    """Its length, then the payload."""

    @staticmethod
    def seal(key: str, payload: bytes, rng: random.Random) -> bytes:
        return len(payload).to_bytes(4, "big") + payload

    @staticmethod
    def open(key: str, stored: bytes) -> bytes | None:
        size = int.from_bytes(stored[:4], "big")
        return stored[4 : 4 + size] if len(stored) >= 4 + size else None


def changed(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The same bytes with something done to them."""
    bytes_ = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(bytes_) + 1)
        match rng.randrange(8):
            case 0 | 1 if bytes_:
                bytes_[at % len(bytes_)] ^= 1 << rng.randrange(8)
            case 2:
                del bytes_[at : at + rng.randrange(1, 20)]
            case 3:
                bytes_[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 4:
                bytes_[at:] = other[rng.randrange(len(other) + 1) :]
            case 5:
                bytes_[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
            case 6:
                bytes_ = bytes_[:at]
            case _:
                bytes_ += bytes_[at : at + 50]
    return bytes(bytes_)


def envelopes(count: int, seed: int, subject: Any = Envelope) -> Outcome:
    rng = random.Random(seed)
    wrong: list[str] = []
    same = refused = 0

    def payload_of() -> bytes:
        text = rng.choice((b"", b"x", b"words and more words ", rng.randbytes(40)))
        return (text * rng.choice((1, 3, 40)))[: rng.choice((0, 10, 100, 5_000))] + rng.randbytes(rng.randrange(8))

    sealed = {}
    for number in range(50):
        payload = payload_of()
        sealed[f"k{number}"] = (payload, subject.seal(f"k{number}", payload, rng))
        if subject.open(f"k{number}", sealed[f"k{number}"][1]) != payload:
            wrong.append(f"payload {number} did not come back")
    names = list(sealed)
    for case in range(count):
        key, other = rng.choice(names), rng.choice(names)
        payload, stored = sealed[key]
        given = rng.randbytes(rng.randrange(200)) if rng.random() < 0.05 else changed(stored, sealed[other][1], rng)
        try:
            opened = subject.open(key, given)
        except Exception as error:
            wrong.append(f"case {case}: {error!r}")
            continue
        refused += opened is None
        same += given == stored
        if opened is not None and opened != payload:
            wrong.append(f"case {case}: {opened[:40]!r} came out of {payload[:40]!r}")
    return Outcome(count, f"{refused:,} refused, {same:,} were the same bytes again", wrong)


# --------------------------------------------------------------------------------------------------------------- keys

_PIECES = (":", ",", "'", "%", "%3A", "(", ")", "[", "]", "{", "}", "=", "~", "a", "b", "1", "é", "\n", "\0", " ")


def item_of(rng: random.Random, depth: int = 2) -> Any:
    """Any canonical argument, mostly short ones, which are the likeliest to be mistaken for each other."""
    kinds = 14 if depth else 10
    match rng.randrange(kinds):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice((0, 1, -1, 10, 2**63, -(2**300), rng.randrange(-20, 20)))
        case 2:
            return rng.choice((0.0, -0.0, 1.0, 1.5, 1e300, float("inf"), rng.random()))
        case 3 | 4 | 5:
            return "".join(rng.choice(_PIECES) for _ in range(rng.randrange(4)))
        case 6:
            return rng.choice((b"", b"1", b"a", b":", rng.randbytes(2)))
        case 7:
            return decimal.Decimal(rng.choice(("1", "1.0", "1.00", "0", "-0", "1E+2")))
        case 8:
            return rng.choice((uuid.UUID(int=1), datetime.date(2026, 1, 1), datetime.timedelta(seconds=1)))
        case 9:
            return datetime.datetime(2026, 1, 1, rng.randrange(3), fold=rng.randrange(2))
        case 10:
            return [item_of(rng, depth - 1) for _ in range(rng.randrange(3))]
        case 11 | 12:
            return tuple(item_of(rng, depth - 1) for _ in range(rng.randrange(3)))
        case _:
            return {str(item_of(rng, 0)): item_of(rng, depth - 1) for _ in range(rng.randrange(3))}


def identity(item: Any) -> Any:
    """What makes two arguments the same: type and content, deeply."""
    kind = type(item)
    if kind in (list, tuple):
        return kind, tuple(map(identity, item))
    if kind is dict:
        return kind, frozenset((identity(key), identity(value)) for key, value in item.items())
    if kind is float:
        return kind, item.hex()
    if kind is decimal.Decimal:
        return kind, item.as_tuple()
    if kind is datetime.datetime:
        return kind, item.isoformat(), item.fold
    return kind, item


def readable(args: tuple[Any, ...]) -> str:
    """The product's."""
    return _keys.readable("f", args, strict=True)


def naive_key(args: tuple[Any, ...]) -> str:
    """As it is often written."""
    return ":".join(["f", *map(str, args)])


def keys(count: int, seed: int, text_of: Callable[[tuple[Any, ...]], str] = readable) -> Outcome:
    rng = random.Random(seed)
    wrong: list[str] = []
    known: dict[str, Any] = {}
    for case in range(count):
        args = tuple(item_of(rng) for _ in range(rng.randrange(4)))
        text = text_of(args)
        mine = identity(args)
        if text_of is readable and (len(text.encode("utf-8", "surrogatepass")) > _keys.MAX_BYTES or "\n" in text):
            wrong.append(f"case {case}: {text!r} is too long, or has a line break")
        if known.setdefault(text, mine) != mine:
            wrong.append(f"case {case}: {args!r} has the key of others: {text!r}")
    return Outcome(count, f"{len(known):,} keys", wrong)


# ------------------------------------------------------------------------------------------------------------ headers

_HARMLESS = (
    "public",
    "max-age=60",
    "s-maxage=60",
    "must-revalidate",
    "x-own",
    'x-own="a, b"',
    "max-stale",
    "immutable",
)
_NEVER = ("no-store", "private", 'private="set-cookie"', "no-cache")


def spelled(word: str, rng: random.Random) -> str:
    """In any case of its letters."""
    name, equals, value = word.partition("=")
    return "".join(rng.choice((c.lower(), c.upper())) for c in name) + equals + value


def fields_of(rng: random.Random) -> tuple[list[tuple[str, str]], bool]:
    """Fields that are well formed, and whether an answer that has them may be stored at all."""
    allowed = True
    words = [rng.choice(_HARMLESS) for _ in range(rng.randrange(4))]
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words) + 1), rng.choice(_NEVER))
        allowed = False
    fields: list[tuple[str, str]] = []
    while words:  # in one line or several
        take = rng.randrange(1, len(words) + 1)
        comma = rng.choice((",", ", ", " ,\t", ",,", " , , "))
        name = spelled("cache-control", rng)
        fields.append((name, rng.choice(("", " ", ",")) + comma.join(spelled(word, rng) for word in words[:take])))
        words = words[take:]
    if rng.random() < 0.15:
        fields.append((spelled("set-cookie", rng), "a=b; Path=/"))
        allowed = False
    if rng.random() < 0.15:
        fields.append((spelled("vary", rng), rng.choice(("*", "Accept, *", " * ", "*,accept"))))
        allowed = False
    rng.shuffle(fields)
    return fields, allowed


def any_fields(rng: random.Random) -> list[tuple[str, str]]:
    """Fields of any bytes that a server lets through, with pieces of real ones in them."""
    names = ("Cache-Control", "Vary", "Expires", "Date", "ETag", "Last-Modified", "Age", "Connection", "Set-Cookie")
    pieces = ('"', ",", "=", "max-age", "60", "private", "W/", "GMT", "Sun, 06 Nov 1994 08:49:37 GMT", ";", "*", "\\")

    def text() -> str:
        return "".join(
            rng.choice(pieces) if rng.random() < 0.7 else chr(rng.choice((9, *range(32, 127), *range(160, 256))))
            for _ in range(rng.randrange(8))
        )

    return [(rng.choice(names), text()) for _ in range(rng.randrange(6))]


def ours(app: Any) -> Any:
    """The product."""
    return stillwarm.flask.ResponseCache(app, Cache(max_entries=200), ttl=60)


def naive_front(app: Any) -> Any:
    """Looks for the words as they are mostly written, in the first field of their name."""
    kept: dict[str, Any] = {}

    def front(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path in kept:
            start_response(*kept[path][0])
            return [kept[path][1]]
        said: list[Any] = []
        body = b"".join(app(environ, lambda *what: said.append(what)))
        fields = dict(reversed(said[0][1]))
        words = fields.get("Cache-Control", "").split(", ")
        if not {"no-store", "private", "no-cache"} & set(words) and "Set-Cookie" not in fields:
            kept[path] = (said[0], body)
        start_response(*said[0])
        return [body]

    return front


def headers(count: int, seed: int, front: Callable[[Any], Any] = ours) -> Outcome:
    rng = random.Random(seed)
    wrong: list[str] = []
    fields: list[tuple[str, str]] = []
    answers = stored = 0

    def app(environ: Any, start_response: Any) -> Any:
        nonlocal answers
        answers += 1
        start_response("200 OK", [("Content-Type", "text/plain"), *fields])
        return [b"answer %d" % answers]

    fronted = front(app)
    for case in range(count):
        known = rng.random() < 0.5
        fields, allowed = fields_of(rng) if known else (any_fields(rng), True)
        try:
            first, second = (ask_wsgi(fronted, f"/{case}") for _ in range(2))
        except Exception as error:
            wrong.append(f"case {case}: {fields!r}: {error!r}")
            continue
        again = second.body == first.body
        stored += again
        if again and not allowed:
            wrong.append(f"case {case}: an answer with {fields!r} was given to somebody else")
        if first.body != b"answer %d" % (answers if again else answers - 1):
            wrong.append(f"case {case}: {fields!r}: {first.body!r} arrived")
    return Outcome(count, f"{stored:,} stored", wrong)


__all__ = ["NaiveEnvelope", "Outcome", "envelopes", "headers", "keys", "naive_front", "naive_key"]
