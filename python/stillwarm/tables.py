"""Public names for tables of a type's own in PostgreSQL: `cache.define(name, table=..., columns=..., history=[Step(...)])`.

Thread rule: frozen records, any thread.
Refuses to know: the server (_ddl, _schema).
"""

from __future__ import annotations

from stillwarm._tables import Step, TypedTable

__all__ = ["Step", "TypedTable"]
