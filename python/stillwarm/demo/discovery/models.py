"""What the endpoints take and answer: the OpenAPI schema is made of these, and nothing is sent that is not in it.

Thread rule: constants.
Refuses to know: how it is found.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

MOST_INT = 2**31 - 1  # of a column of type int
MOST_IDS = 100
_Asin = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{10}$")]


class Body(BaseModel):
    """Every field is in the answer, also one that is null."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, json_schema_serialization_defaults_required=True)


# ----------------------------------------------------------------------------------------------------------- requests


class Filters(Body):
    """What products have to fit. A filter that is null is not applied; a range includes both ends."""

    domain: int = Field(1, ge=1, le=11, description="Marketplace: 1 is .com, 2 .co.uk, 3 .de, up to 11.")
    category: int | None = Field(
        None,
        ge=0,
        le=MOST_INT,
        description="Id of a category; null and 0: all of them. An unknown one has no products.",
    )
    bsr_min: int | None = Field(None, ge=1, le=MOST_INT, description="Best sales rank that fits.")
    bsr_max: int | None = Field(None, ge=1, le=MOST_INT, description="Worst sales rank that fits.")
    price_min: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False, description="Lowest price that fits.")
    price_max: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False, description="Highest price that fits.")

    @field_validator("category")
    @classmethod
    def _none_for_all(cls, value: int | None) -> int | None:
        return value or None

    @model_validator(mode="after")
    def _in_order(self) -> Filters:
        for name in ("bsr", "price"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}_min={low} is above {name}_max={high}; accepted: {name}_min <= {name}_max")
        return self


class ScoringFilters(Filters):
    """Filters, and how many of the products that fit are scored."""

    max_results: int = Field(20, ge=1, le=MOST_IDS, description="Products to score, those with the best rank first.")


class ScoreRequest(Body):
    """Ids to score."""

    asins: list[_Asin] = Field(
        min_length=1,
        max_length=MOST_IDS,
        description="Ids of ten capital letters and digits; one given twice counts once.",
    )
    domain: int = Field(1, ge=1, le=11, description="Marketplace: 1 is .com, 2 .co.uk, 3 .de, up to 11.")


# ------------------------------------------------------------------------------------------------------------ answers

_CACHE_HIT = "True only if the product API was not asked: neither by this request nor by one whose load it shared."
_SOURCE = Field(description="Where the values come from: all from the cache, some of them, or none.")
_TIMESTAMP = Field(description="When this answer was made, UTC.")


class Metadata(Body):
    """How a search was answered."""

    filters_applied: Filters = Field(description="The filters, with the defaults of those that were not given.")
    timestamp: datetime = _TIMESTAMP
    source: Literal["cache", "mixed", "upstream"] = _SOURCE


class ScoreMetadata(Body):
    """How a request for scores was answered."""

    filters_applied: ScoreRequest = Field(description="What was asked for.")
    timestamp: datetime = _TIMESTAMP
    source: Literal["cache", "mixed", "upstream"] = _SOURCE


class DiscoverBody(Body):
    """Ids of the products that fit the filters."""

    asins: list[str] = Field(description="Ids, those with the best rank first.")
    count: int = Field(ge=0, description="How many they are.")
    cache_hit: bool = Field(description=_CACHE_HIT)
    metadata: Metadata = Field(description="How the search was answered.")


class ScoredProduct(Body):
    """A product and what it is worth to a reseller."""

    asin: str = Field(description="Its id.")
    title: str | None = Field(description="Its title, at most 500 characters.")
    price: float | None = Field(description="Today's price; null: out of stock.")
    bsr: int | None = Field(description="Its sales rank; null: it has none.")
    roi_percent: float = Field(description="Return on investment in percent.")
    velocity_score: float = Field(ge=0, le=100, description="How soon it is sold again, 0 to 100.")
    recommendation: Literal["STRONG_BUY", "BUY", "CONSIDER", "SKIP"] = Field(description="What follows from both.")


class ScoredBody(Body):
    """Scored products that fit the filters."""

    products: list[ScoredProduct] = Field(description="The highest return on investment first.")
    total_count: int = Field(ge=0, description="How many products are in this answer.")
    cache_hit: bool = Field(description=_CACHE_HIT)
    metadata: Metadata = Field(description="How the search was answered.")


class ScoresBody(Body):
    """Scores of the ids that were asked for."""

    products: list[ScoredProduct] = Field(description="In the order of the ids.")
    total_count: int = Field(ge=0, description="How many products are in this answer.")
    not_found: list[str] = Field(description="Ids that there are not.")
    cache_hit: bool = Field(description=_CACHE_HIT)
    metadata: ScoreMetadata = Field(description="How the request was answered.")


class AlertBody(Body):
    """An alert as it stands."""

    name: Literal["entries", "reuse", "expired", "tier_down"] = Field(
        description="entries: more than 10,000; reuse: hits of an entry on average below 2; expired: above 20 %."
    )
    active: bool = Field(description="Whether its figure is beyond the threshold.")
    crossings: int = Field(description="How often it has been raised; each time with one WARNING line.")
    value: float | None = Field(description="The figure; null: it cannot be told yet.")
    threshold: float = Field(description="Where it is raised.")
    message: str = Field(description="The same for people.")


Database = Literal["none", "up", "down"]
_DATABASE = Field(description="none: the cache is in memory only. down: it does not answer, and memory stands in.")


class HealthBody(Body):
    """Whether the service can do its work."""

    status: Literal["healthy", "degraded"] = Field(
        description="degraded: no key, a database that is down, or an alert."
    )
    upstream_key_configured: bool = Field(description="Whether there is a key of the product API.")
    database: Database = _DATABASE
    cache_enabled: bool = Field(description="False: every request asks the product API.")
    cache_state: Literal["HEALTHY", "WARMING", "DEGRADED", "DOWN"] = Field(description="The state of the cache.")
    alerts: list[AlertBody] = Field(description="The alerts that are active.")


class CacheFigures(Body):
    """Figures of one cache."""

    entries: int = Field(description="Entries that are there, expired ones included.")
    total_hits: int = Field(description="Hits of these entries.")
    average_reuse: float = Field(description="Hits of an entry, on average.")
    expired: int = Field(description="Entries that are past all service and not purged yet.")
    table_size_bytes: int = Field(description="Size of the table with its indexes; without a database, of the entries.")
    hits: int = Field(description="Look-ups that did not wait, since the start.")
    stale_hits: int = Field(description="Of these: with a value past its ttl, because the product API did not answer.")
    misses: int = Field(description="Look-ups that waited for the product API, since the start.")
    hit_ratio: float = Field(ge=0, le=1, description="hits / (hits + misses)")
    ttl_seconds: int = Field(description="How long a value is fresh.")


class HotKey(Body):
    """One of the most reused entries."""

    key: str = Field(description="Its readable key.")
    type: str = Field(description="discovery or scoring.")
    hits: int = Field(description="How often it was used.")


class FrequentFilters(Body):
    """Filters that were searched for often."""

    filters: dict[str, Any] = Field(description="The filters or ids as they were recorded.")
    count: int = Field(description="How often.")


class HistoryFigures(Body):
    """Figures of the search history. Clearing the caches leaves it alone."""

    total: int = Field(description="Searches on record.")
    by_search_type: dict[str, int] = Field(description="Searches by type: discovery, scoring, autosourcing.")
    frequent_filters: list[FrequentFilters] = Field(description="The ten most frequent, the most frequent first.")


class StatsBody(Body):
    """Figures of both caches and of the history: of all processes where there is a database."""

    database: Database = _DATABASE
    discovery: CacheFigures = Field(description="Ids by filters, 24 h.")
    scoring: CacheFigures = Field(description="Scores by id, 6 h.")
    hit_ratio: float = Field(ge=0, le=1, description="Of both together.")
    upstream_calls: int = Field(description="Calls of the product API since the start.")
    hot_keys: list[HotKey] = Field(description="The ten most reused entries.")
    history: HistoryFigures | None = Field(description="The searches; null: the database does not answer.")
    alerts: list[AlertBody] = Field(description="All alerts.")


class ErrorBody(Body):
    """The product API does not answer, and nothing is cached."""

    detail: str = Field(description="What is the matter.")
    retry_after: int | None = Field(description="Seconds until asking again makes sense; null: not known.")


class FieldError(BaseModel):
    """A field that is not accepted."""

    type: str = Field(description="Kind of the error.")
    loc: list[str | int] = Field(description="Where the field is: body, then its name.")
    msg: str = Field(description="What is accepted.")


class InvalidBody(BaseModel):
    """The request is not accepted."""

    detail: list[FieldError] = Field(description="Each field that is not accepted.")


__all__ = [
    "AlertBody",
    "CacheFigures",
    "Database",
    "DiscoverBody",
    "ErrorBody",
    "Filters",
    "FrequentFilters",
    "HealthBody",
]
__all__ += ["HistoryFigures", "HotKey", "InvalidBody", "Metadata", "ScoreMetadata", "ScoreRequest", "ScoredBody"]
__all__ += ["ScoredProduct", "ScoresBody", "ScoringFilters", "StatsBody"]
