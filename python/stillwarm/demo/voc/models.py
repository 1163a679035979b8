"""What the endpoints take and answer: the OpenAPI schema is made of these, and nothing is sent that is not in it.

Thread rule: constants.
Refuses to know: how it is found.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from stillwarm import State

_FIRST, _LAST = 1900, 2200  # years


class Body(BaseModel):
    """Every field is in the answer, also one that is null."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class NewWindow(Body):
    """A window to save."""

    start_at: AwareDatetime = Field(description="When it begins, with its offset from UTC.")
    end_at: AwareDatetime = Field(description="When it ends, with its offset from UTC; after start_at.")
    source: Annotated[str, StringConstraints(pattern=r"^[!-~][ -~]{0,99}$")] = Field(
        description="Who says so: 1 to 100 ASCII characters."
    )

    @field_validator("start_at", "end_at")
    @classmethod
    def _of_our_time(cls, value: datetime) -> datetime:
        if not _FIRST <= value.year < _LAST:
            raise ValueError(f"accepted: years {_FIRST} to {_LAST - 1}")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> NewWindow:
        if self.end_at <= self.start_at:
            raise ValueError("end_at is not after start_at; accepted: start_at < end_at")
        return self


class WindowBody(Body):
    """A window."""

    id: int = Field(description="Its number.")
    start_at: datetime = Field(description="When it begins.")
    end_at: datetime = Field(description="When it ends.")
    source: str = Field(description="Who says so.")


class CurrentBody(Body):
    """The window that is now."""

    current: WindowBody | None = Field(description="The window that is now; null: none.")
    cache_hit: bool = Field(description="The answer was there already; false: this request waited for the database.")
    age_seconds: float = Field(ge=0, description="How long ago it was read in the database.")
    stale: bool = Field(description="It is over its time, and stands in because the database does not answer.")


class StatusBody(CurrentBody):
    """The windows now, next, and soon."""

    next: WindowBody | None = Field(description="The next window; null: none is known.")
    upcoming: list[WindowBody] = Field(description="Those that begin within 48 hours.")


class SavedBody(Body):
    """What became of a window."""

    outcome: Literal["inserted", "updated", "unchanged", "written"] = Field(
        description="written: it is there as given, but the answer of the database was lost: nobody knows who wrote it."
    )
    id: int | None = Field(description="Its number; null where the answer was lost.")


class CacheFigures(Body):
    """One cache, as this process sees it."""

    has_data: bool = Field(description="Whether a request now would be answered without waiting.")
    age_seconds: float | None = Field(description="How old the value is that was given last; null: none was.")
    ttl: int = Field(description="How long a value is fresh, seconds.")


class StatsBody(Body):
    """Both caches."""

    status: CacheFigures = Field(description="Of /status.")
    current: CacheFigures = Field(description="Of /current.")


class HealthBody(Body):
    """Whether the service can do its work."""

    status: Literal["healthy", "degraded"] = Field(description="degraded: it answers what it has, and saves nothing.")
    database: Literal["none", "up", "down"] = Field(description="As the cache sees it; none: it has none.")
    cache_state: State = Field(description="The state of the cache.")


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: Literal["about:blank"] = Field("about:blank", description="No more than the status says.")
    title: str = Field(description="What the status means.")
    status: int = Field(description="The status.")
    detail: str = Field(description="What is the matter.")


class FieldError(BaseModel):
    """A field that is not accepted."""

    type: str = Field(description="Kind of the error.")
    loc: list[str | int] = Field(description="Where the field is: body, then its name.")
    msg: str = Field(description="What is accepted.")


class InvalidBody(BaseModel):
    """The request is not accepted."""

    detail: list[FieldError] = Field(description="Each field that is not accepted.")


__all__ = ["CacheFigures", "CurrentBody", "HealthBody", "InvalidBody", "NewWindow", "Problem", "SavedBody"]
__all__ += ["StatsBody", "StatusBody", "WindowBody"]
