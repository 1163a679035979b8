"""A write route that runs once per idempotency key: what it is told, and the answers that no handler gave.

Thread rule: immutable, any thread.
Refuses to know: frameworks, and in which order things happen (_idempotent_steps). The grammar of the key is the core's
(cpp/core/antidup/idempotency.hpp).

The draft is draft-ietf-httpapi-idempotency-key-header; errors are problem details (RFC 9457).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stillwarm import _core
from stillwarm._durations import duration, shown, size
from stillwarm._idempotency import (
    Claim,
    Kept,
    Outcome,
    hashed,
    key_of,
    new_owner,
)
from stillwarm._idempotency_memory import MemoryStore, Store, store_of
from stillwarm._invalidating import no_sql
from stillwarm.errors import ConfigError, IdempotencyConflict, IdempotencyError, IdempotencyMismatch
from stillwarm.web.facts import Response, line_of, storable, text

if TYPE_CHECKING:
    from stillwarm._cache import Cache

REPLAYED: Final = ("Idempotency-Replayed", "true")
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1: there is nothing to repeat
NOT_NOW: Final = frozenset({408, 425, 429})  # refused before anything was done
_OWN: Final = frozenset({"date", "server", "content-length", "idempotency-replayed"})  # each answer has its own
_UNAVAILABLE_FOR: Final = 1  # s
_ERRORS: Final[dict[int, type[IdempotencyError]]] = {409: IdempotencyConflict, 422: IdempotencyMismatch}

_log = logging.getLogger("stillwarm")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What `idempotent` was told, checked. Durations in ns, sizes in bytes."""

    name: str
    required: bool
    ttl: int
    per_user: Callable[..., Any] | None
    max_body: int
    max_response: int
    lease: int
    transaction: Any  # a callable, or the name of the handler's argument
    rerun: bool
    header: str


def checked(
    name: str,
    required: Any,
    ttl: Any,
    per_user: Any,
    max_body: Any,
    max_response: Any,
    lease: Any,
    transaction: Any,
    on_crash: Any,
    header: Any,
) -> Rules:
    """The options as Rules.

    Raises:
        ConfigError: names the option, its value and what is accepted.
    """
    if not isinstance(required, bool):
        raise ConfigError(f"required={shown(required)}: accepted: True or False")
    if per_user is not None and not callable(per_user):
        raise ConfigError(f"per_user={shown(per_user)}: accepted: a callable that returns who asks (str), or None")
    if transaction is not None and not callable(transaction) and not (isinstance(transaction, str) and transaction):
        raise ConfigError(
            f"transaction={shown(transaction)}: accepted: a callable that returns the handler's open connection or "
            "session, the name of the handler's argument that is one, or None"
        )
    if on_crash not in ("unknown", "rerun"):
        raise ConfigError(f'on_crash={shown(on_crash)}: accepted: "unknown" or "rerun"')
    if not isinstance(header, str) or not header or not header.replace("-", "").isalnum() or not header.isascii():
        raise ConfigError(f'header={shown(header)}: accepted: the name of a header field, such as "Idempotency-Key"')
    return Rules(
        name,
        required,
        duration(ttl, "ttl", minimum_ms=1_000),
        per_user,
        size(max_body, "max_body"),
        size(max_response, "max_response"),
        duration(lease, "lease", minimum_ms=3_000),
        transaction,
        on_crash == "rerun",
        header,
    )


class Facts(NamedTuple):
    """One request, as far as it matters here."""

    method: str
    route: str  # what its keys are scoped by: "POST /orders/<id>"
    path: str
    query: bytes
    body: str  # its hash
    key: str
    user: Any  # what `per_user` returned; None without it
    authorization: str
    cookie: str


class Result(NamedTuple):
    """What the handler answered. `raised`: by an exception that says what is so."""

    response: Response
    raised: bool = False


class Made(NamedTuple):
    """An answer that no handler gave."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    error: IdempotencyError | None = None  # what an error handler of the app's own may answer instead


def problem(status: int, code: str, detail: str, retry_after: int = 0) -> Made:
    """Problem details: `code` tells them apart."""
    title, code = line_of(status).partition(" ")[2], f"idempotency-{code}"
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    headers = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
    if retry_after:
        headers.append(("Retry-After", str(retry_after)))
    kind = _ERRORS.get(status)
    return Made(status, headers, json.dumps(body).encode(), None if kind is None else kind(detail, code, retry_after))


def handler_in(handlers: Mapping[Any, Any], error: IdempotencyError) -> Any:
    """The handler of an app for this very kind of error, or None: one of all exceptions is not meant."""
    kinds = (kind for kind in type(error).__mro__ if issubclass(kind, IdempotencyError))
    return next((handlers[kind] for kind in kinds if kind in handlers), None)


def too_large(rules: Rules) -> Made:
    return problem(413, "body-too-large", f"the body has more than {rules.max_body} bytes, which this route takes")


def key_in(rules: Rules, fields: list[str]) -> str | Made | None:
    """The key of a request's header fields; None: there is none and none is needed."""
    if not fields:
        if not rules.required:
            return None
        return problem(400, "key-missing", f"this request needs the header {rules.header}: a new one for each write")
    if len(fields) > 1:
        return problem(400, "key-malformed", f"the header {rules.header} came {len(fields)} times")
    key, error = _core.parse_idempotency_key(fields[0])
    if error is not None:
        detail = f'the header {rules.header} is no key: {error}; accepted: a string such as "8e03978e-40d5-43dd-bc93"'
        return problem(400, "key-malformed", f"{detail}, 1 to 255 characters")
    return key


def caller_of(user: Any, authorization: str) -> str | None:
    """Who asks: whom `per_user` names, else whoever has this Authorization header; None: it does not tell."""
    if user is not None:
        kind: Any = type(user)
        if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
            raise ConfigError(f"per_user is {shown(user)}; accepted: what str() tells from others")
        return f"user {user!s}"
    return f"authorization {authorization}" if authorization else None


def claim_of(rules: Rules, facts: Facts) -> Claim:
    caller = caller_of(facts.user, facts.authorization)
    # Cookies change from request to request: in the key they would make a repetition a new write. So whoever is known
    # by nothing else gets an answer again only with the cookies that it was given to, and never executes again.
    witness = hashed(facts.cookie) if caller is None and facts.cookie else ""
    return Claim(
        key_of(caller, facts.route, facts.key),
        facts.route,
        hashed(facts.method, facts.path, facts.query, facts.body),
        witness,
        new_owner(),
        rules.lease,
        rules.ttl,
        rules.rerun,
    )


def kept_of(rules: Rules, response: Response) -> Kept:
    """What is kept of an answer: without cookies and what belongs to the connection."""
    if response.body is None or len(response.body) > rules.max_response:
        return Kept(response.status, (), None)
    fields = ((text(name), text(value)) for name, value in storable(response.headers))
    return Kept(response.status, tuple(pair for pair in fields if pair[0].lower() not in _OWN), response.body)


def refused(outcome: Outcome, claim: Claim) -> Made:
    """The answer to a request that does not run."""
    verdict = outcome.verdict
    if verdict == "running":
        detail = "a request with this key is being executed: ask again later, with the same key"
        return problem(409, "running", detail, outcome.retry_after)
    if verdict == "mismatch":
        return problem(422, "key-reused", "this key was used for another request: a new request needs a new key")
    if verdict == "unknown":
        detail = "a request with this key was begun and its outcome is unknown: look whether it had its effect"
        return problem(409, "outcome-unknown", detail)
    if verdict == "unkept" or outcome.kept is None:
        return problem(409, "answer-not-kept", "this request was executed, and its answer was too large to be kept")
    if outcome.witness not in ("", claim.witness):  # one without cookies was nobody in particular
        return problem(409, "answer-not-yours", "this request was executed; its answer is for the session that sent it")
    return Made(outcome.kept.status, [*outcome.kept.headers, REPLAYED], outcome.kept.body or b"")


def unavailable(error: BaseException) -> Made:
    _log.warning("idempotency: not executed, since the record of its key cannot be written: %s", error)
    detail = "nothing was executed, since keys cannot be recorded at the moment: ask again, with the same key"
    return problem(503, "unavailable", detail, _UNAVAILABLE_FOR)


def uncommitted(error: BaseException) -> Made:
    _log.warning("idempotency: whether the transaction of a request was committed is not known: %s", error)
    detail = "whether this was executed is not known: ask again, with the same key, and it is executed once in all"
    return problem(503, "commit-unknown", detail, _UNAVAILABLE_FOR)


FAILED: Final = problem(500, "failed", "a request with this key was executed and failed: it is not executed again")


def frees(status: int, rules: Rules) -> bool:
    """Whether the key of an answer without transaction is free again."""
    return status in NOT_NOW or (status >= 500 and rules.rerun)


def store_for(cache: Cache, rules: Rules) -> Store:
    """The store of a cache that can do what a route asks for.

    Raises:
        ConfigError: `transaction=` without a database.
    """
    store = store_of(cache)
    if rules.transaction is not None and isinstance(store, MemoryStore) and cache._enabled:
        raise no_sql(f"{rules.name}: transaction=", cache._tier is not None)
    return store


def made_headers(made: Made) -> list[tuple[str, str]]:
    """With the length of the body, where there may be one."""
    if made.status in (204, 304) or made.status < 200:
        return made.headers
    return [*made.headers, ("Content-Length", str(len(made.body)))]
