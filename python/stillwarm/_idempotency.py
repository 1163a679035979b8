"""Records of idempotency keys: what is claimed and kept, under which name, and how that stands in a row.

Thread rule: immutable, any thread. What a store does is written once, as generators that yield an `Ask` and are sent
its rows; who drives them waits (web/_idempotent_steps.py).
Refuses to know: HTTP, and where records are (_idempotency_postgres, _idempotency_memory). The verdicts and the
statements are the core's (cpp/core/antidup/idempotency.hpp).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from stillwarm import _core
from stillwarm.errors import IdempotencyError

T = TypeVar("T")


class Ask(NamedTuple):
    """A statement for the tier; its rows come back. `timeout` in ns, 0: the tier's own."""

    text: str
    params: list[str | None]
    timeout: int = 0


class Migrate(NamedTuple):
    """The tables are missing: make them."""


Steps: TypeAlias = Generator[Any, Any, T]


class StoreFull(IdempotencyError):
    """There is no room for another key, and none may be forgotten."""


class Claim(NamedTuple):
    """One request's wish to run."""

    key: str  # a hash of who asks, the route and the key
    route: str
    fingerprint: str
    witness: str
    owner: str  # of this very request
    lease: int  # ns
    ttl: int  # ns
    rerun: bool


class Kept(NamedTuple):
    """What is kept of an answer. Without a body the request was executed and its answer is not to be had."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


class Outcome(NamedTuple):
    """What becomes of the request: run, replay, unkept, running, mismatch, unknown."""

    verdict: str
    retry_after: int = 0  # s
    kept: Kept | None = None
    witness: str = ""
    xid: str = ""


class Unknown(NamedTuple):
    """A key whose owner is gone in mid-execution, as an operator sees it. Neither key nor caller are kept."""

    record: str  # their hash: see `key_of`
    route: str
    by_cookies: bool  # nothing but cookies told who asked
    age: float  # s since it was claimed
    unknown_for: float  # s since its lease ended
    expires_in: float  # s


def hashed(*fields: str | bytes) -> str:
    """128 bits of the fields, each with its length, so that no two lists of fields give the same bytes.

    BLAKE2b in every build: keys come from clients, and one that finds two with the same hash could ask for another's
    answer. It takes a millisecond for a megabyte.
    """
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = field.encode("utf-8", "surrogatepass") if isinstance(field, str) else field
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def key_of(caller: str | None, route: str, key: str) -> str:
    """The name of a record: two callers never share one."""
    return hashed("anybody" if caller is None else "caller", caller or "", route, key)


def new_owner() -> str:
    return os.urandom(12).hex()


def values(namespace: str, claim: Claim) -> list[str | None]:
    """The parameters of the statement `claim`."""
    lease, ttl = claim.lease // 1_000_000, claim.ttl // 1_000_000
    rerun = "true" if claim.rerun else "false"
    return [namespace, *claim[:5], str(lease), str(ttl), rerun]


def finish_values(namespace: str, claim: Claim, kept: Kept) -> list[str | None]:
    """The parameters of the statement `finish`."""
    body = None if kept.body is None else base64.b64encode(kept.body).decode("ascii")
    state = "unkept" if kept.body is None else "done"
    ttl = str(claim.ttl // 1_000_000)
    return [namespace, claim.key, claim.owner, state, str(kept.status), json.dumps(kept.headers), body, ttl]


def outcome_of(text: str | None, claim: Claim) -> Outcome:
    """What the row of `claim` says; without one another request claimed the key a moment ago."""
    if text is None:
        verdict, wait = _core.judge_idempotency(None, claim.fingerprint, 0, claim.rerun, True)
        return Outcome(verdict, wait)
    row = json.loads(text)
    if row["won"]:
        return Outcome("run", xid=row["xid"])
    times = (int(float(row[name]) * 1e9) for name in ("claimed_at", "lease_until", "expires_at", "now"))
    claimed_at, lease_until, expires_at, now = times
    found = (row["state"], row["fingerprint"], claimed_at, lease_until, expires_at)
    verdict, wait = _core.judge_idempotency(found, claim.fingerprint, now, claim.rerun, True)
    kept = None
    if verdict == "replay":
        headers = tuple((name, value) for name, value in json.loads(row["headers"]))
        kept = Kept(row["status"], headers, base64.b64decode(row["body"]))
    return Outcome(verdict, wait, kept, row["witness"])


def unknown_of(rows: Iterable[tuple[str | None, ...]]) -> list[Unknown]:
    """What the rows of `unknown` say."""
    return [Unknown(**json.loads(text)) for (text,) in rows if text is not None]


__all__ = [
    "Ask",
    "Claim",
    "Kept",
    "Migrate",
    "Outcome",
    "Steps",
    "StoreFull",
    "Unknown",
    "finish_values",
    "hashed",
    "key_of",
    "new_owner",
    "outcome_of",
    "unknown_of",
    "values",
]
