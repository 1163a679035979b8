"""Settings of a type or a function: what may be said, what it means, and how the three levels combine.

Thread rule: immutable after construction.
Refuses to know: caches and loads.

A setting is looked for in the decorator, in the type (`cache.define`), in the Cache, and at last in the defaults below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, TypedDict

from stillwarm import _core
from stillwarm._durations import duration, shown
from stillwarm._retry import Retry
from stillwarm.errors import ConfigError

Duration: TypeAlias = int | float | str | timedelta
Ttl: TypeAlias = Duration | Callable[[Any], Duration | None] | None
JOINED: Final = "joined"  # the type of joined functions: of no entries, and in no figures
FOREVER: Final[int] = _core.FOREVER
EARLY_AUTO: Final[float] = _core.EARLY_AUTO


class CacheOptions(TypedDict, total=False):
    """What `Cache()` takes for all its functions, beside ttl."""

    tags: Iterable[str] | Callable[..., Iterable[str]] | None
    stale_while_revalidate: Duration
    stale_if_error: Duration
    classify: Callable[[BaseException], str] | None
    stale_on: Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...]
    early_refresh: float | Literal["auto"] | None
    keep: Duration
    negative_ttl: Duration | None
    jitter: float
    soft_timeout: Duration | None
    hard_timeout: Duration | None
    retry: Retry | None
    scope: Literal["process", "fleet"]
    copy: Literal["none", "deep"]
    private: bool
    unless: Callable[[Any], bool] | None
    weigh: Callable[[Any], int] | None


class TypeOptions(CacheOptions, total=False):
    """What `cache.define` takes. Durations: seconds, `timedelta`, or text such as "5m"."""

    ttl: Ttl


class TableOptions(TypeOptions, total=False):
    """What `cache.define` takes beside: a table of the type's own in PostgreSQL. See `stillwarm.tables`."""

    table: str
    columns: Mapping[str, str]
    indexes: Sequence[str] | Mapping[str, str | Sequence[str]]
    key_column: str
    value: str | Callable[[dict[str, Any]], Any] | None
    project: Callable[..., Mapping[str, Any]] | None
    unlogged: bool
    history: Sequence[Any]


TABLE_ONLY: Final = TableOptions.__optional_keys__ - TypeOptions.__optional_keys__


def own_table(name: str, options: dict[str, Any]) -> Any:
    """The TypedTable of a type, or None: it has no table of its own.

    Raises:
        ConfigError: names the option, its value and what is accepted.
    """
    if not options:
        return None
    if "table" not in options or "columns" not in options:
        raise ConfigError(f"type {name!r}: {', '.join(options)}: accepted together with table= and columns=")
    from stillwarm._tables import typed_table

    return typed_table(name, **options)


class Options(TypeOptions, total=False):
    """What `@cached` takes beside its type."""

    type: str | None
    key: str | Callable[..., str] | None
    name: str | None
    ignore: Sequence[str]
    version: int | str
    loader_many: Callable[..., Any] | None
    decode_as: Any
    codec: Any


@dataclass(frozen=True)
class Settings:
    """Checked settings; durations in ns, FOREVER for no end, 0 for off."""

    ttl: int | Callable[[Any], Duration | None]
    stale_while_revalidate: int = 0
    stale_if_error: int | None = None  # None: as long again as it was fresh
    classify: Callable[[BaseException], str] | None = None
    stale_on: Any = None
    early: float = 0.0  # EARLY_AUTO: by the measured time of the load
    keep: int = 0
    negative_ttl: int = 0
    jitter: float = 0.1
    soft_timeout: int = 0
    hard_timeout: int = 0
    retry: Retry | None = None
    copy: bool = False
    unless: Callable[[Any], bool] | None = None
    weigh: Callable[[Any], int] | None = None
    tags: tuple[str, ...] | Callable[..., Iterable[str]] = ()
    fleet: bool = False
    private: bool = False  # no compression dictionary is trained with it
    local: bool = False  # no remote tier is asked, and none is told

    @property
    def plain(self) -> bool:
        """A load needs nothing but a call of the function, and its result nothing but to be stored."""
        return not (
            callable(self.ttl)
            or self.retry
            or self.soft_timeout
            or self.hard_timeout
            or self.copy
            or self.unless
            or self.weigh
            or self.tags
        )

    def durations(self, ttl: int) -> tuple[int, int, int, int]:
        """(ttl, stale_while_revalidate, stale_if_error, keep) of a value that is fresh for `ttl`."""
        if_error = ttl if self.stale_if_error is None else self.stale_if_error
        return ttl, self.stale_while_revalidate, if_error, self.keep


TYPE_OPTIONS: Final = TypeOptions.__optional_keys__
OPTIONS: Final = Options.__optional_keys__


def check_names(given: Iterable[str], accepted: Iterable[str], where: str) -> None:
    """Raises ConfigError for an option that does not exist, with the one that was probably meant."""
    accepted = sorted(accepted)
    for name in given:
        if name not in accepted:
            close = difflib.get_close_matches(name, accepted, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ";"
            raise ConfigError(f"{where} has no option {name!r}{hint} accepted: {', '.join(accepted)}")


def ttl_ns(value: object, argument: str = "ttl") -> int:
    """A ttl in ns: None is FOREVER, 0 is "do not store"."""
    ns = duration(value, argument, allow_none=True, allow_zero=True)
    return FOREVER if ns is None else ns


def resolve(levels: Sequence[dict[str, Any]], where: str) -> Settings:
    """The settings that follow from the levels, the nearest first.

    Raises:
        ConfigError: a value is not accepted, or no level gives a ttl.
    """
    merged: dict[str, Any] = {}
    for level in reversed(levels):
        merged.update({name: value for name, value in level.items() if name in TYPE_OPTIONS})
    if "ttl" not in merged:
        raise ConfigError(
            f"{where} has no ttl, and there is no unbounded default: give ttl= here, in its type or to the Cache; "
            f'accepted: seconds, text like "5m", timedelta, a callable of the value, 0 (do not store), None (for ever)'
        )
    checked: dict[str, Any] = {}
    for name, value in merged.items():
        checked[_FIELDS.get(name, name)] = _CHECKS[name](value)
    return Settings(**checked)


def _refuse(name: str, value: object, accepted: str) -> ConfigError:
    return ConfigError(f"{name}={shown(value)}: accepted: {accepted}")


def _ttl(value: object) -> object:
    return value if callable(value) else ttl_ns(value)


def _grace(name: str) -> Callable[[object], int]:
    return lambda value: ttl_ns(value, name)


def _optional(name: str) -> Callable[[object], int]:
    return lambda value: duration(value, name, allow_none=True, allow_zero=name == "negative_ttl") or 0


def _fraction(value: object, name: str, low_open: bool) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < 1 or (low_open and value == 0):  # type: ignore[operator]
        raise _refuse(name, value, f"a fraction {'above' if low_open else 'from'} 0 and below 1")
    return float(value)  # type: ignore[arg-type]


def _early(value: object) -> float:
    """A fraction of the ttl, or "auto": XFetch by the measured time of the load (Vattani, Chierichetti, Lowenstein:
    Optimal Probabilistic Cache Stampede Prevention, PVLDB 8(8), 2015; see cpp/core/base/life.hpp)."""
    if value == "auto":
        return EARLY_AUTO
    if isinstance(value, str):
        raise _refuse("early_refresh", value, "a fraction above 0 and below 1, 'auto', or None")
    return 0.0 if value is None else _fraction(value, "early_refresh", True)


def _callable(name: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value is not None and not callable(value):
            raise _refuse(name, value, "a callable, or None")
        return value

    return check


def _tags(value: object) -> object:
    if value is None or callable(value):
        return value or ()
    return tuple(tag_names(value))


def tag_names(value: object) -> list[str]:
    """A list of tags as it may come from a setting or from a `tags=` callable."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _refuse("tags", value, "a list of str, or a callable of the arguments that returns one")
    tags = list(value)
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise _refuse("tags", tag, "tags that are str and not empty")
    return tags


def _retry(value: object) -> object:
    if value is not None and not isinstance(value, Retry):
        raise _refuse("retry", value, "a stillwarm.Retry, or None")
    return value


def _one_of(name: str, accepted: dict[str, Any]) -> Callable[[object], Any]:
    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in accepted:
            raise _refuse(name, value, " or ".join(map(repr, accepted)))
        return accepted[value]

    return check


def _private(value: object) -> object:
    if not isinstance(value, bool):
        raise _refuse("private", value, "True or False")
    return value


def _stale_on(value: object) -> object:
    classes = value if isinstance(value, tuple) else (value,)
    if all(isinstance(c, type) and issubclass(c, BaseException) for c in classes) or callable(value):
        return value
    raise _refuse("stale_on", value, "an exception class, a tuple of such, or a predicate such as stillwarm.transient")


_FIELDS: Final = {"early_refresh": "early", "scope": "fleet"}
_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "ttl": _ttl,
    "tags": _tags,
    "stale_while_revalidate": _grace("stale_while_revalidate"),
    "stale_if_error": _grace("stale_if_error"),
    "classify": _callable("classify"),
    "stale_on": _stale_on,
    "early_refresh": _early,
    "keep": _grace("keep"),
    "negative_ttl": _optional("negative_ttl"),
    "jitter": lambda value: _fraction(value, "jitter", False),
    "soft_timeout": _optional("soft_timeout"),
    "hard_timeout": _optional("hard_timeout"),
    "retry": _retry,
    "scope": _one_of("scope", {"process": False, "fleet": True}),
    "copy": _one_of("copy", {"none": False, "deep": True}),
    "private": _private,
    "unless": _callable("unless"),
    "weigh": _callable("weigh"),
}


def checked_level(given: dict[str, Any], where: str) -> dict[str, Any]:
    """A level's options with their values checked, so that a mistake shows where it was made."""
    check_names(given, TYPE_OPTIONS, where)
    for name, value in given.items():
        _CHECKS[name](value)
    return dict(given)
