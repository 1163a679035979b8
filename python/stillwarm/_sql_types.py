"""SQL names and column types as a user may write them: checked by a strict grammar, and never more than that.

Thread rule: pure functions and frozen records, any thread.
Refuses to know: tables, values, and the server.

Names are identifiers and are quoted wherever they are used. A column is a text like "varchar(20) not null default 'x'":
a type name with (n) or (n,m), [], and the words `not null` and `default <literal>`. Anything else is refused, so that
no text of an option can become a statement of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from stillwarm._durations import shown
from stillwarm.errors import ConfigError

Text: TypeAlias = "str | None"
Row: TypeAlias = "tuple[str | None, ...]"
# One statement with $1, $2, ... and its parameters; text in, text out; each call is a transaction of its own. How long
# it may take is the Query's own affair. Its session shows dates in DateStyle ISO and bytea in hex: from_text reads no
# other text.
Query: TypeAlias = Callable[[str, Sequence[Text]], "list[tuple[str | None, ...]]"]

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

_TYPE = r"""
    (?P<name> double\s+precision | character\s+varying | timestamp\s+with(?:out)?\s+time\s+zone
            | time\s+with(?:out)?\s+time\s+zone | [A-Za-z_][A-Za-z0-9_]{0,62} )
    (?: \s* \( \s* (?P<size>\d{1,8}) \s* (?: , \s* (?P<scale>\d{1,4}) \s* )? \) )?
    (?: \s* (?P<array> \[\] ) )?
"""
_LITERAL = r"""
    [+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)? | '[^'\\;]*' | true | false | null
    | now\(\) | current_timestamp | gen_random_uuid\(\)
"""
_COLUMN: Final = re.compile(
    rf"\s* {_TYPE} (?: \s+ not\s+null (?P<first>) )? (?: \s+ default \s+ (?P<default> {_LITERAL} ) )?"
    rf" (?: \s+ not\s+null (?P<last>) )? \s*",
    re.VERBOSE | re.IGNORECASE,
)
_FORMS: Final = (
    'an SQL type such as "int", "varchar(20)", "numeric(10,2)" or "text[]", then "not null" and "default <literal>"'
)
# The names that format_type() gives, by which two spellings of one type are known to be the same.
_CANONICAL: Final = {
    "int": "integer",
    "int4": "integer",
    "int2": "smallint",
    "int8": "bigint",
    "float": "double precision",
    "float8": "double precision",
    "float4": "real",
    "decimal": "numeric",
    "bool": "boolean",
    "varchar": "character varying",
    "char": "character",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "timetz": "time with time zone",
    "time": "time without time zone",
}
_SERIAL: Final = frozenset({"serial", "serial2", "serial4", "serial8", "smallserial", "bigserial"})
_SIZED: Final = frozenset(
    {"character varying", "character", "numeric", "bit", "varbit", "float", "timestamp with time zone"}
    | {"timestamp without time zone", "time with time zone", "time without time zone", "interval"}
)


def identifier(name: object, argument: str) -> str:
    """The name, if it may be one of a table, column, index or schema.

    Raises:
        ConfigError: names the argument, the value and what is accepted.
    """
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
        raise ConfigError(f"{argument}={shown(name)}: accepted: {IDENTIFIER.pattern}")
    return name


def quoted(name: str) -> str:
    """A checked identifier as it stands in a statement, in exactly this spelling."""
    return f'"{identifier(name, "identifier")}"'


def literal(text: str) -> str:
    """A text as an SQL literal, for statements that take no parameters."""
    if "\0" in text:
        raise ConfigError(f"{shown(text)}: a text with a NUL cannot be sent to PostgreSQL")
    return "'" + text.replace("'", "''") + "'" if "\\" not in text else _escaped(text)


def _escaped(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True)
class Column:
    """A column: `type` as format_type() spells it, `size` of a text or None, `default` as given or None."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    collate: str | None = None

    @cached_property
    def base(self) -> str:
        """The type without size and [], as format_type() spells it."""
        return re.sub(r"\(.*?\)|\[\]", "", self.type).strip()

    @property
    def array(self) -> bool:
        return self.type.endswith("[]")

    @cached_property
    def length(self) -> int | None:
        """Most characters of a varchar(n) or char(n)."""
        found = re.fullmatch(r"character(?: varying)?\((\d+)\)", self.type)
        return int(found[1]) if found else None

    @property
    def text(self) -> str:
        """Type, NOT NULL and DEFAULT as they stand behind the name."""
        return self.kind + (f" DEFAULT {self.default}" if self.default else "") + " NOT NULL" * self.not_null

    @property
    def kind(self) -> str:
        """The type with its collation."""
        return self.type + (f' COLLATE "{self.collate}"' if self.collate else "")


def column(name: object, text: object, argument: str = "columns") -> Column:
    """A column of the name with the type text.

    Raises:
        ConfigError: the name is no identifier, or the text not of the grammar.
    """
    named = identifier(name, f"{argument}: name")
    where = f"{argument}[{named!r}]"
    found = _COLUMN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(f"{where}={shown(text)}: accepted: {_FORMS}")
    if found["first"] is not None and found["last"] is not None:
        raise ConfigError(f'{where}={shown(text)}: "not null" is there twice')
    base = " ".join(found["name"].lower().split())
    if base in _SERIAL:
        raise ConfigError(f"{where}={shown(text)}: a serial column has no value of its own to keep; accepted: {_FORMS}")
    return Column(
        named,
        _canonical(base, found["size"], found["scale"], bool(found["array"]), f"{where}={shown(text)}"),
        found["first"] is not None or found["last"] is not None,
        None if found["default"] is None or found["default"].lower() == "null" else _lower(found["default"]),
    )


def _lower(default: str) -> str:
    return default if default.startswith("'") else default.lower()


def _canonical(base: str, size: str | None, scale: str | None, array: bool, where: str) -> str:
    if base == "float" and size is not None:
        base, size = ("real" if int(size) <= 24 else "double precision"), None
    name = _CANONICAL.get(base, base)
    if size is not None and name not in _SIZED:
        raise ConfigError(f"{where}: {base} has no size; accepted: {_FORMS}")
    if scale is not None and name != "numeric":
        raise ConfigError(f"{where}: {base} has one size; accepted: {_FORMS}")
    if name == "character" and size is None:
        size = "1"
    arguments = "" if size is None else f"({int(size)},{int(scale or 0)})" if name == "numeric" else f"({int(size)})"
    first, gap, rest = name.partition(" ")
    sized = f"{first}{arguments}{gap}{rest}" if first in ("timestamp", "time") else name + arguments
    return sized + "[]" * array


def same_default(one: str | None, other: str | None) -> bool:
    """Whether two defaults, one of them as the catalog shows it, mean the same."""

    def plain(text: Any) -> str:
        bare = re.sub(r"::[a-z_ ]+(\(\d+(,\d+)?\))?(\[\])?", "", text or "null")
        bare = re.sub(r"^\((.*)\)$", r"\1", bare.strip())
        bare = re.sub(r"^'([+-]?\d+(?:\.\d+)?)'$", r"\1", bare)
        return "now()" if bare.lower() == "current_timestamp" else bare if bare.startswith("'") else bare.lower()

    return plain(one) == plain(other)
