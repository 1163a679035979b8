"""Public names for tables of types in PostgreSQL: `cache.define(name, table=..., columns=..., history=[...])`.

Thread rule: frozen records, any thread.
Refuses to know: the server (_ddl, _schema).
"""

from __future__ import annotations

from stillwarm._tables import Step, TypedTable

__all__ = ["Step", "TypedTable"]
