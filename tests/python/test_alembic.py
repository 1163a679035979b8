"""Real Alembic beside stillwarm: autogenerate proposes nothing about our tables; a revision may run our migration.

Thread rule: one thread.
Refuses to know: what the tables hold.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from postgres_here import Database
from reference_tables import HISTORY, HISTORY_INDEXES, discovery, scoring
from stillwarm import ConfigError
from stillwarm._schema import migrate
from stillwarm._verify import verify
from stillwarm.alembic import downgrade, ignore, upgrade
from stillwarm.journal import Journal


def models() -> sqlalchemy.MetaData:
    """The app's own tables."""
    metadata = sqlalchemy.MetaData()
    sqlalchemy.Table(
        "users", metadata, sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("name", sqlalchemy.Text, index=True),
    )  # fmt: skip
    return metadata


def engine(database: Database) -> sqlalchemy.Engine:
    url = database.url.replace("postgresql://", "postgresql+psycopg://")
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)


def proposed(database: Database, metadata: sqlalchemy.MetaData, **options: Any) -> list[Any]:
    with engine(database).connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def all_tables(database: Database) -> list[Any]:
    history = Journal(database.query, "search_history", HISTORY, HISTORY_INDEXES)
    return [discovery(), scoring(), history]


def test_alembic_autogenerate_proposes_nothing(database: Database) -> None:
    tables = all_tables(database)
    migrate(database.query, tables)
    metadata = models()
    metadata.create_all(engine(database))
    # The control: without the helper it would drop the caches.
    dropped = {change[1].name for change in proposed(database, metadata) if change[0] == "remove_table"}
    assert dropped == {"product_discovery_cache", "product_scoring_cache", "search_history"}
    names = ignore("product_discovery_cache", "product_scoring_cache", "search_history")
    for helper in (names, ignore(*tables)):
        assert proposed(database, metadata, include_object=helper) == []
        assert proposed(database, metadata, include_name=helper, include_schemas=True) == []
    assert proposed(database, metadata, include_object=ignore(*tables), include_name=ignore(*tables)) == []


def test_alembic_autogenerate_still_sees_the_apps_own_changes(database: Database) -> None:
    tables = all_tables(database)
    migrate(database.query, tables)
    metadata = models()
    helper = ignore(*tables)
    found = {change[0] for change in proposed(database, metadata, include_object=helper, include_name=helper)}
    assert found == {"add_table", "add_index"}
    database.sql("CREATE TABLE orders (id int)")
    changes = proposed(database, metadata, include_object=helper)
    assert {change[1].name for change in changes if change[0] == "remove_table"} == {"orders"}
    also = ignore(*tables, also=lambda object, name, type_, reflected, compare_to: name != "orders")
    changes = proposed(database, metadata, include_object=also)
    assert [change for change in changes if change[0] == "remove_table"] == []


def test_alembic_revision_runs_our_migration_and_takes_it_back(database: Database) -> None:
    tables = all_tables(database)
    with engine(database).begin() as connection:
        upgrade(Operations(MigrationContext.configure(connection)), *tables)
    assert verify(database.query, tables).ok
    assert migrate(database.query, tables).already
    with engine(database).begin() as connection:
        downgrade(Operations(MigrationContext.configure(connection)), *tables)
    assert database.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'product%'") == [(0,)]
    assert database.sql("SELECT to_regnamespace('stillwarm')::text") == [(None,)]


def test_alembic_offline_script_is_the_same_migration(database: Database) -> None:
    tables = all_tables(database)
    out = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": out})
    upgrade(Operations(context), *tables)
    database.sql(out.getvalue())
    assert verify(database.query, tables).ok


def test_alembic_rolled_back_revision_leaves_nothing(database: Database) -> None:
    with engine(database).connect() as connection:
        upgrade(Operations(MigrationContext.configure(connection)), scoring())
        connection.rollback()
    assert database.sql("SELECT to_regclass('product_scoring_cache')::text") == [(None,)]


def test_alembic_ignore_wants_tables() -> None:
    with pytest.raises(ConfigError, match="tables: 5"):
        ignore(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tables"):
        ignore('a"b')
