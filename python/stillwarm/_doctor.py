"""The doctor: what is wrong with a cache in a database, and what to do about it.

Thread rule: any thread; it only reads.
Refuses to know: terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from stillwarm._admin import stats
from stillwarm._connect import unsafe
from stillwarm._durations import duration
from stillwarm._layouts import own
from stillwarm._place import Place
from stillwarm._sql_types import literal, quoted
from stillwarm._verify import Report, verify
from stillwarm.errors import ConfigError, StillwarmError

SHORT_TTL: Final = 30.0
_MANY, _REUSED, _EXPIRED = 10_000, 2.0, 0.2


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or that may hurt ("note"); `advice` says what to do."""

    level: Literal["wrong", "note"]
    what: str
    advice: str


def examine(place: Place, url: str, cache: Any = None, tables: Sequence[Any] = ()) -> list[Finding]:
    """Everything that is found; [] is a clean bill of health.

    Args:
        url: how the database is reached.
        cache: the app's Cache, for what only it knows: ttl of types, load times, pooler.
        tables: further tables to verify, such as journals.
    """
    found = []
    if reason := unsafe(url):
        found.append(Finding("wrong", reason, "use sslmode=verify-full with the server's certificate (sslrootcert=)"))
    if locked_out := _schema_rights(place):
        return [*found, locked_out]  # nothing else can be looked at
    report = verify(place.query, [*place.typed, *tables], schema=place.schema)
    found += _server(report)
    found += [Finding("wrong", *_split(difference)) for difference in report.differences]
    found += _rights(place, [table.name for table in report.tables if table.exists])
    there = {table.name for table in report.tables if table.rows is not None}
    if f"{place.schema}.entries" in there and all(table.table in there for table in place.typed):
        found += _contents(place)
    found += _settings(cache)
    return found


def _server(report: Report) -> list[Finding]:
    found = []
    if report.server_number < 130000:
        found.append(
            Finding(
                "wrong", f"the server has version {report.server_version}", "stillwarm needs PostgreSQL 13 or newer"
            )
        )
    for warning in report.warnings:
        what, _, advice = warning.partition(": ")
        found.append(Finding("wrong", what, advice))
    return found


def _split(difference: str) -> tuple[str, str]:
    for cut in ("; this keeps the newest of each: ", ": stillwarm db migrate", ": ALTER TABLE"):
        what, found, rest = difference.partition(cut)
        if found:
            if cut.startswith("; "):
                return what, f"keep the newest of each, then run stillwarm db migrate: {rest}"
            return what, (found + rest)[2:] if "ALTER" in cut else "stillwarm db migrate"
    return difference, "write a Step for it in history=, or change the declaration; then stillwarm db migrate"


def _role(place: Place) -> tuple[str, str]:
    ((user,),) = place.query("SELECT current_user", [])
    return str(user), '"' + str(user).replace('"', '""') + '"'


def _schema_rights(place: Place) -> Finding | None:
    usage = place.query(
        "SELECT CASE WHEN to_regnamespace($1) IS NULL THEN true "
        "ELSE has_schema_privilege(to_regnamespace($1)::oid, 'USAGE') END",
        [quoted(place.schema)],
    )
    if usage == [("t",)]:
        return None
    user, role = _role(place)
    grant = f"GRANT USAGE ON SCHEMA {quoted(place.schema)} TO {role}"
    return Finding("wrong", f"{user} may not use the schema {place.schema}", grant)


def _rights(place: Place, there: Sequence[str]) -> list[Finding]:
    found = []
    user, role = _role(place)
    layouts = [*own(place.schema), *(table.layout() for table in place.typed)]
    for layout in layouts:
        if layout.shown not in there:
            continue
        ((may,),) = place.query(
            "SELECT string_agg(r, ', ') FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) r "
            f"WHERE NOT has_table_privilege(to_regclass({literal(layout.sql)})::oid, r)",
            [],
        )
        if may:
            grant = f"GRANT {may} ON {layout.sql} TO {role}"
            found.append(Finding("wrong", f"{user} may not {may} on {layout.shown}", grant))
    return found


def _contents(place: Place) -> list[Finding]:
    found = []
    entries = place.table("entries")
    try:
        others = [
            str(row[0])
            for row in place.query(
                f"SELECT DISTINCT namespace FROM {entries} WHERE namespace <> $1 ORDER BY 1", [place.namespace]
            )
        ]
        short = place.query(
            f"SELECT type, avg(extract(epoch FROM fresh_until - created_at)) FROM {entries} "
            "WHERE namespace = $1 AND fresh_until < 'infinity' GROUP BY type ORDER BY type",
            [place.namespace],
        )
        figures = stats(place)
    except StillwarmError as error:
        return [Finding("wrong", f"the tables cannot be read: {error}", "see the findings above")]
    if place.namespace == "default" and others:
        found.append(
            Finding(
                "wrong",
                f"the namespace is 'default' in a database that others share: {', '.join(others)}",
                "give each app a namespace of its own: Cache(url, namespace=...) or STILLWARM_NAMESPACE",
            )
        )
    for name, seconds in short:
        if float(seconds or 0) < SHORT_TTL:
            found.append(_short(str(name), float(seconds or 0)))
    if figures.entries > _MANY:
        advice = "a purge that does not run, or keys that never repeat: see stillwarm top, or cap it with max_rows"
        found.append(Finding("note", f"{figures.entries} entries, more than {_MANY}", advice))
    if figures.entries and figures.expired / figures.entries > _EXPIRED:
        share = f"{100 * figures.expired / figures.entries:.0f} % of the entries are expired"
        found.append(Finding("note", share, "stillwarm purge; if it comes back, the hourly purge does not run"))
    for name, one in figures.types.items():
        if one.entries >= 100 and one.average_hits < _REUSED:
            what = f"type {name}: an entry is reused {one.average_hits:.1f} times on average"
            found.append(Finding("note", what, "a longer ttl, fewer arguments in the key, or no cache at all"))
    return found


def _short(name: str, seconds: float) -> Finding:
    advice = "a tier pays from 30 s on: a longer ttl with invalidation, or a Cache() of memory only for this type"
    return Finding("note", f"type {name}: values are fresh for {seconds:.3g} s, less than {SHORT_TTL:.0f} s", advice)


def _settings(cache: Any) -> list[Finding]:
    """What the app's own Cache says."""
    found: list[Finding] = []
    types: Mapping[str, Mapping[str, Any]] = getattr(cache, "_types", None) or {}
    counters = cache.stats().types if cache is not None and hasattr(cache, "stats") else {}
    for name, options in types.items():
        ttl = _seconds(options.get("ttl"))
        if ttl is None:
            continue
        if ttl < SHORT_TTL and not any(f"type {name}:" in one.what for one in found):
            found.append(_short(name, ttl))
        one = counters.get(name)
        if one is not None and one.loads and one.load_seconds / one.loads > ttl:
            what = f"type {name}: a load takes {one.load_seconds / one.loads:.3g} s, its value is fresh for {ttl:.3g} s"
            found.append(Finding("wrong", what, "a ttl longer than the load, or a faster source"))
    tagged = any(options.get("tags") for options in types.values()) or getattr(cache, "_defaults", {}).get("tags")
    if tagged and (getattr(cache, "pooler", False) or getattr(cache, "_pooler", False)):
        what = "tags are in use without push: with pooler=True others learn of an invalidation by the poll"
        found.append(Finding("note", what, "count on max_lag, or give stillwarm a URL that goes past the pooler"))
    return found


def _seconds(ttl: Any) -> float | None:
    if ttl is None or callable(ttl):
        return None
    try:
        return duration(ttl, "ttl", allow_zero=True) / 1e9 or None
    except ConfigError:
        return None
