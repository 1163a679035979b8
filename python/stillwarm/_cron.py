"""The purge as SQL for the database's own scheduler, pg_cron: a procedure of the same statements, and its schedule.

Thread rule: pure functions, any thread.
Refuses to know: whether pg_cron is installed. The procedure is plain PostgreSQL and can be called by any scheduler.
"""

from __future__ import annotations

import re
from typing import Any, Final

from stillwarm import _purge_sql
from stillwarm._durations import duration, shown
from stillwarm._place import Place
from stillwarm._purge import RETENTION
from stillwarm._sql_types import literal, quoted
from stillwarm.errors import ConfigError

_SCHEDULE: Final = re.compile(r"[0-9*/,\- ]{9,100}|\d+ seconds?")


def procedure_name(place: Place) -> str:
    """The quoted name of the procedure that purges the namespace."""
    return f"{quoted(place.schema)}.{quoted('purge_' + place.namespace[:57])}"


def procedure_sql(place: Place, *, batch: int = 1000, retention: Any = RETENTION) -> str:
    """CREATE PROCEDURE of the purge of the place. It commits after each batch: CALL it outside of a transaction."""
    seconds = duration(retention, "retention", allow_zero=True) / 1e9
    lines = [
        f"CREATE OR REPLACE PROCEDURE {procedure_name(place)}() LANGUAGE plpgsql AS $stillwarm$",
        "DECLARE",
        f"  namespace CONSTANT text := {literal(place.namespace)};",
        f"  batch CONSTANT int := {int(batch)};",
        f"  cutoff CONSTANT timestamptz := clock_timestamp() - interval '{seconds} seconds';",
        "  r record; hard boolean; soft boolean; old boolean;",
        "  after text; gone bigint; missed bigint := 0; left_over bigint;",
        "BEGIN",
    ]
    for table in place.typed:
        lines += _until_none(_purge_sql.typed_expired(place, table), "namespace, batch")
    lines += _window(_purge_sql.expired(place))
    lines.append(f"EXECUTE {literal(_purge_sql.any_marks(place))} INTO hard, soft, old USING namespace, cutoff;")
    dead = [_purge_sql.typed_dead(place, table) for table in place.typed] + [_purge_sql.dead(place)]
    lines += ["IF hard THEN", *(line for sql in dead for line in _window(sql)), "END IF;"]
    stale = [_purge_sql.typed_stale(place, table) for table in place.typed] + [_purge_sql.stale(place)]
    lines += ["IF soft THEN", *(line for sql in stale for line in _window(sql)), "END IF;"]
    lines += [
        "IF old AND missed = 0 THEN",
        *_until_none(_purge_sql.marks(place), "namespace, batch, cutoff"),
        "END IF;",
    ]
    lines += [
        f"EXECUTE {literal(_purge_sql.leases(place))} USING namespace;",
        f"EXECUTE {literal(_purge_sql.flushes(place))};",
        f"EXECUTE {literal(_purge_sql.idempotency(place))} USING namespace, '100000';",
        "END $stillwarm$",
    ]
    return "\n".join(lines)


def pg_cron_sql(place: Place, schedule: str = "17 * * * *", *, batch: int = 1000, retention: Any = RETENTION) -> str:
    """A script for psql: the procedure, and its schedule in pg_cron (hourly by default). It may be run again.

    Raises:
        ConfigError: the schedule is none.
    """
    if not isinstance(schedule, str) or not _SCHEDULE.fullmatch(schedule):
        raise ConfigError(f'schedule={shown(schedule)}: accepted: five fields as in crontab, such as "17 * * * *"')
    name = literal(f"stillwarm purge {place.schema}.{place.namespace}")
    call = literal(f"CALL {procedure_name(place)}()")
    return (
        "-- once per server: shared_preload_libraries = 'pg_cron'; in cron.database_name: CREATE EXTENSION pg_cron;\n"
        "-- if this database is not cron.database_name: the procedure here, and there cron.schedule_in_database\n"
        f"{procedure_sql(place, batch=batch, retention=retention)};\n"
        f"SELECT cron.schedule({name}, {literal(schedule)}, {call});\n"
    )


def _until_none(sql: str, using: str) -> list[str]:
    return [
        "LOOP",
        "  gone := 0;",
        f"  FOR r IN EXECUTE {literal(sql)} USING {using} LOOP",
        "    IF NOT r.got THEN RETURN; END IF;",
        "    gone := gone + r.n;",
        "  END LOOP;",
        "  COMMIT;",
        "  EXIT WHEN gone = 0;",
        "END LOOP;",
    ]


def _window(sql: str) -> list[str]:
    return [
        "after := '';",
        "LOOP",
        f"  FOR r IN EXECUTE {literal(sql)} USING namespace, batch, after LOOP",
        "    IF NOT r.got THEN RETURN; END IF;",
        "    after := r.last; left_over := r.missed;",
        "  END LOOP;",
        "  COMMIT;",
        "  missed := missed + left_over;",
        "  EXIT WHEN after IS NULL;",
        "END LOOP;",
    ]
