"""Typed tables, for those that had the table before: how rows of an earlier layout are brought forward.

    from stillwarm.tables import Step, rekeyed
    cache.define("scoring", table="scores", columns={...}, history=[rekeyed("arguments", "scoring:{asin}:{domain}")])

`history=` lists the steps from the oldest layout to the newest. `stillwarm db migrate` runs each where the table has
the column that the step is for, and the app does so when it makes its tables itself. `rekeyed` is the step from one
JSON column to columns of their own; a `Step` is any other.

Thread rule: frozen records and pure functions, any thread.
Refuses to know: how a table gets to its layout (_ddl, _schema).
"""

from __future__ import annotations

from stillwarm._rekey import rekeyed
from stillwarm._tables import Step

__all__ = ["Step", "rekeyed"]
