"""What the management endpoints take and answer, for the OpenAPI schema of a FastAPI application.

Thread rule: constants.
Refuses to know: how it is made (`management`); answers are sent as they are, never through these models.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

_RECORD: Final = "^[0-9a-f]{32}$"
_Alert = Literal["hit_rate", "errors", "tier_down", "entries", "reuse", "expired"]


class Counts(BaseModel):
    """Counts of one type, or of all."""

    hits: int = Field(description="Answered without waiting, the stale ones included.")
    misses: int
    errors: int = Field(description="Failed loads and failures of the remote tier.")
    total_requests: int = Field(description="hits + misses")
    hit_rate: float = Field(description="Percent, two decimals.", ge=0, le=100)
    stale_hits: int
    remote_hits: int = Field(description="Hits that came from the remote tier; in hits, too.")
    joined: int = Field(description="Misses that shared another caller's load.")
    loads: int
    load_errors: int
    load_seconds: float
    lost_fills: int = Field(description="Loaded and not stored, because of an invalidation meanwhile.")
    evictions: dict[str, int] = Field(description="Entries that left before their time, by cause.")
    expired: int
    entries: int
    bytes: int
    skipped_refreshes: int
    remote_errors: int
    seconds_saved: float = Field(description="Hits times the mean time of a load.")
    last_error: str | None


class LastError(BaseModel):
    """The last error of a type's loads."""

    type: str
    error: str


class CacheStats(Counts):
    """The figures of a cache."""

    is_available: bool
    state: Literal["HEALTHY", "WARMING", "DEGRADED", "DOWN"]
    namespace: str
    tier: str | None = Field(description="What the remote tier is: PostgreSQL, Redis; none: memory only.")
    max_bytes: int | None
    max_entries: int | None
    flights: int
    last_errors: list[LastError] = Field(description="The newest first.")
    http: dict[str, int] | None = Field(description="How routes were answered, where route caching is in use.")
    types: dict[str, Counts]


class StatsBody(BaseModel):
    """Answer of /stats."""

    status: Literal["success"]
    cache_stats: CacheStats


class AlertBody(BaseModel):
    """An alert as it stands."""

    name: _Alert
    active: bool
    crossings: int
    value: float | None
    threshold: float
    raised: Literal["below", "above"]
    message: str


class AlertsBody(BaseModel):
    """Answer of /alerts."""

    status: Literal["success"]
    alerts: list[AlertBody]


class HealthBody(BaseModel):
    """Answer of /health."""

    status: Literal["success", "error"]
    state: Literal["HEALTHY", "WARMING", "DEGRADED", "DOWN"]
    alerts: list[AlertBody]


class HotKeyRow(BaseModel):
    """One of the most used entries."""

    key: str
    type: str
    hits: int
    bytes: int


class HotKeysBody(BaseModel):
    """Answer of /hot-keys."""

    status: Literal["success"]
    hot_keys: list[HotKeyRow]


class EntryRow(HotKeyRow):
    """What is stored."""

    state: Literal["fresh", "early", "stale", "failsafe", "gone"]
    python_type: str
    value: str = Field(description="Its repr, cut off after 10,000 characters.")
    truncated: bool


class EntryBody(BaseModel):
    """Answer of /entry."""

    status: Literal["success"]
    entry: EntryRow


class DoneBody(BaseModel):
    """Answer of an invalidation."""

    status: Literal["success"]
    intent: Literal["all", "type", "tag", "key", "pattern"]
    target: str | None
    stale: bool
    count: int | None = Field(description="How many entries, for key and pattern.")


class UnknownKey(BaseModel):
    """An idempotency key whose owner is gone in mid-execution. Neither the key nor its caller are kept."""

    record: str = Field(description="A hash of caller, route and key.", pattern=_RECORD)
    route: str
    by_cookies: bool = Field(description="Nothing but cookies told who asked.")
    age: float = Field(description="Seconds since it began.")
    unknown_for: float = Field(description="Seconds since its lease ended.")
    expires_in: float = Field(description="Seconds until it is free by itself.")


class UnknownBody(BaseModel):
    """Answer of /idempotency-unknown."""

    status: Literal["success"]
    unknown: list[UnknownKey] = Field(description="The oldest first.")


class ReleasedBody(BaseModel):
    """Answer of /idempotency-release."""

    status: Literal["success"]
    record: str
    route: str
    released: Literal[True]


class DeliveredBody(BaseModel):
    """Answer of the webhook."""

    status: Literal["success"]
    id: str
    counts: list[int | None]


class ErrorBody(BaseModel):
    """What is wrong, and for a bad field what is accepted."""

    status: Literal["error"]
    message: str
    field: str | None = None
    value: str | None = None
    accepted: str | None = None
    types: list[str] | None = None


_STALE: Final = {"type": "boolean", "default": False, "description": "Keep the values as stale ones."}


def _named(name: str) -> dict[str, Any]:
    longest = {"maxLength": 1024} if name == "pattern" else {}
    return {"type": "string", "minLength": 1, **longest}


def body_schema(*fields: str) -> dict[str, Any]:
    """The requestBody of an invalidation that has these fields beside stale."""
    schema = {
        "type": "object",
        "properties": {**{name: _named(name) for name in fields}, "stale": _STALE},
        "required": list(fields),
        "additionalProperties": False,
    }
    return {"requestBody": {"required": bool(fields), "content": {"application/json": {"schema": schema}}}}


def record_schema() -> dict[str, Any]:
    """The requestBody of /idempotency-release."""
    schema = {
        "type": "object",
        "properties": {"record": {"type": "string", "pattern": _RECORD}},
        "required": ["record"],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def delivery_schema() -> dict[str, Any]:
    """The requestBody and the headers of the webhook."""
    items = [body_schema(name)["requestBody"]["content"]["application/json"]["schema"] for name in _DELIVERED]
    schema = {
        "type": "object",
        "properties": {"invalidate": {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"oneOf": items}}},
        "required": ["invalidate"],
        "additionalProperties": False,
    }
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "parameters": [parameter(name, "header", required=True) for name in names],
    }


def parameter(name: str, where: str, *, required: bool, **schema: Any) -> dict[str, Any]:
    """One parameter of an operation."""
    return {"name": name, "in": where, "required": required, "schema": {"type": "string", **schema}}


_DELIVERED: Final = ("type", "key", "tag", "pattern")
