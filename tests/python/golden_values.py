"""What the golden data in `golden/` hold, as values: written once as bytes there, and never again.

Thread rule: values that do not change.
Refuses to know: bytes.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from pathlib import Path
from typing import Any, Final

from stillwarm import codecs

FOLDER: Final = Path(__file__).parent / "golden"
KEY: Final = b"golden-golden-golden-golden-gold"


def golden(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@dataclasses.dataclass
class Point:
    x: int
    y: float
    name: str | None = None


class Colour(enum.Enum):
    RED = "red"


_ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
PLAIN: Final[dict[str, Any]] = {
    "none": None,
    "numbers": [0, -1, 127, 2**32, -(2**63), 1.5, -0.0, 1e300, True, False],
    "texts": ["", "grüß €", "a\0b", "\U0001f600"],
    "nested": {"a": [1, {"b": [None]}], "": {}},
    "bytes": b"\x00\xff",
    "tuple": (1, ("a", None)),
    "sets": [{1}, frozenset({"a"})],
    "keys": {1: "a", (2, 3): "b", None: "c"},
    "decimal": [decimal.Decimal("1.0"), decimal.Decimal("-1E+10"), decimal.Decimal("NaN")],
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "moments": [
        datetime.datetime(2026, 11, 26, 17, 3, 5, 123456),
        datetime.datetime(2026, 11, 26, 17, 3, tzinfo=datetime.timezone.utc),
        datetime.datetime(1970, 1, 1, tzinfo=_ZONE),
        datetime.date(1999, 12, 31),
        datetime.time(23, 59, 59, 1),
        datetime.timedelta(days=-1, microseconds=1),
    ],
    "big": [2**64 - 1, 2**200],
}


def equal(one: object, other: object) -> bool:
    """Types included: 1 is not True, and Decimal("NaN") is itself."""
    return repr(one) == repr(other)


def codec_of(name: str) -> codecs.Codec:
    if name == "signed":
        return codecs.signed_pickle(KEY)
    if name.startswith("typed-"):
        return codecs.codec_for(name.removeprefix("typed-"), Point)
    return codecs.codec_for(name)


# Of each codec: name of the payload -> value.
PAYLOADS: Final[dict[str, dict[str, Any]]] = {
    "msgpack": PLAIN,
    "json": PLAIN,
    "typed-msgpack": {"point": Point(1, 2.5), "named": Point(-1, 0.0, "grüß")},
    "typed-json": {"point": Point(1, 2.5), "named": Point(-1, 0.0, "grüß")},
    "signed": {"plain": {"a": [1, 2.5, None, b"x"]}, "set": {1}},
}

# What stands behind `scope:` of a readable key.
KEYS: Final[dict[str, tuple[object, ...]]] = {
    "none": (),
    "plain": (1, 1.0, True, None, "1", b"1"),
    "escaped": ("a:b", "c%d", "it's", "grüß", "a\nb", b"\xff:"),
    "numbers": (-5, 2**300, 1e300, float("inf"), -0.0),
    "nested": ((1, (2,)), [1, [2]], {"b": 1, "a": (None,)}, {2, 1}, frozenset({"a"})),
    "classes": (Colour.RED, Point(1, 2.0), decimal.Decimal("1.00"), uuid.UUID(int=7)),
    "moments": (
        datetime.date(1999, 12, 31),
        datetime.datetime(2026, 11, 26, 17, 3, 5, tzinfo=_ZONE),
        datetime.time(1, 2, 3),
        datetime.timedelta(1, 2, 3),
    ),
    "long": ("x" * 300,),
    "long unicode": ("€" * 300, 1),
}

_HOUR: Final = 3_600_000_000_000
FOREVER: Final = 2**63 - 1
# Envelopes: name -> (namespace, key, payload, codec, negative, durations, size from which it is compressed).
ENVELOPES: Final[dict[str, tuple[str, str, bytes, int, bool, tuple[int, int, int, int], int]]] = {
    "plain": ("shop", "direct\nk", b"\x93\x01\x02\x03", 1, False, (_HOUR, 0, _HOUR, 0), 1024),
    "empty": ("shop", "direct\nempty", b"", 255, False, (FOREVER, FOREVER, FOREVER, FOREVER), 0),
    "absence": ("shop", "shop.find\nshop.find:'x'", b"no such product", 1, True, (5_000_000_000, 0, 0, 0), 1024),
    "uneven durations": ("shop", "direct\nms", b"\xc0", 1, False, (1, 1_000_001, 127_000_000, 0), 1024),
    "compressed": ("shop", "direct\nlong", b"a row of a table, " * 400, 3, False, (_HOUR, _HOUR, 0, 0), 1024),
    "long, uncompressed": ("shop", "direct\nlong", b"a row of a table, " * 20, 3, False, (_HOUR, 0, 0, 0), 1024),
}
