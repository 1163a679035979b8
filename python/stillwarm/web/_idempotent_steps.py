"""The steps of a request to an idempotent route: claim, execute, record; or answer by what is known of the key.

Thread rule: each request's steps belong to its thread or task.
Refuses to know: frameworks, and how one waits. The steps are written once, as a generator that yields what is to be
done (ask the tier, ask the handler's connection, run the handler, end the transaction); `drive` here and `adrive` in
aidempotent do it. The verdicts are the core's (cpp/core/antidup/idempotency.hpp).

What becomes of an execution, without `transaction=`:

    an answer below 500                      kept and replayed; 408, 425 and 429 say "not now", and free the key
    an answer of 500 and more, an exception  on_crash="unknown": kept and replayed, since it may have done something
                                             on_crash="rerun": the key is free
    the process ends, the task is cancelled  unknown after the lease; or free after it, with "rerun"

With it, an answer that the handler returns below 500 is committed with its effects; all else is rolled back, and the
key is free at once. That includes what the handler raises, `abort(404)` or HTTPException as well. Where the connection
ends while the answer is recorded or committed, the client is told to ask again: its repetition finds the answer, or a
key that is free; and 409 while the server has not seen yet that the connection is gone.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

from stillwarm._failures import transient
from stillwarm._idempotency import Claim, Kept, Outcome, StoreFull, finish_values, outcome_of, values
from stillwarm._idempotency_memory import MemoryStore, Store
from stillwarm.errors import ConfigError, TierError
from stillwarm.web.facts import Response
from stillwarm.web.idempotent import (
    FAILED,
    NOT_NOW,
    Facts,
    Made,
    Result,
    Rules,
    claim_of,
    frees,
    kept_of,
    refused,
    unavailable,
    uncommitted,
)


# What the steps ask for beside `Ask` and `Migrate`.
class Run(NamedTuple):
    """Calls the handler; a `Result` comes back, or what it raised."""


class Open(NamedTuple):
    """The handler's own connection is about to be used."""


class On(NamedTuple):
    """A statement on it; the first column of its first row comes back, or None."""

    text: str
    params: list[str | None]


class End(NamedTuple):
    """Ends its transaction."""

    commit: bool


class Hands(Protocol):
    """What drives the steps on a thread."""

    def do(self, wish: Any) -> Any: ...


Steps = Generator[Any, Any, "Made | Response"]


def perform(rules: Rules, store: Store, facts: Facts) -> Steps:
    """Executes the request, or answers it by what is known of its key.

    Raises:
        Exception: what the handler raised, unchanged.
    """
    claim = claim_of(rules, facts)
    if rules.transaction is not None:
        return (yield from _within(rules, store, claim))
    try:
        outcome = yield from store.claim(claim)
    except (TierError, StoreFull) as error:
        return unavailable(error)
    if outcome.verdict != "run":
        return refused(outcome, claim)
    try:
        response: Response = (yield Run()).response
        kept = kept_of(rules, response)
    except Exception:
        if rules.rerun:
            yield from store.release(claim)
        else:
            yield from store.finish(claim, Kept(FAILED.status, tuple(FAILED.headers), FAILED.body))
        raise
    except BaseException:  # cancelled: nobody says what was done
        store.drop(claim)
        raise
    if frees(response.status, rules):
        yield from store.release(claim)
    else:
        yield from store.finish(claim, kept)
    return response


def _within(rules: Rules, store: Store, claim: Claim) -> Steps:
    """The same inside the handler's own transaction: claim, effects and answer commit together.

    Where a cache is switched off there is no database of its own to ask: then keys are in memory, and the transaction
    is ended all the same.
    """
    in_memory = isinstance(store, MemoryStore)
    try:
        yield from store.ready()
        yield Open()
        outcome = yield from (store.claim(claim) if in_memory else _claimed(store, claim))
    except (TierError, StoreFull) as error:
        return unavailable(error)
    except ConfigError:
        raise
    except Exception as error:
        yield End(False)
        if _state_of(error) == "40001":  # somebody claimed it since this transaction's snapshot
            return refused(Outcome("running", 1), claim)
        if not transient(error):
            raise
        return unavailable(error)
    if outcome.verdict != "run":
        yield End(False)
        return refused(outcome, claim)
    ended = False  # the commit was asked for: it may be done, whatever comes back
    recorded: bool | None = None  # not tried yet
    try:
        result: Result = yield Run()
        response = result.response
        if result.raised or response.status >= 500 or response.status in NOT_NOW:
            yield End(False)
            if in_memory:
                yield from store.release(claim)
            return response
        if in_memory:
            ended = True
            yield End(True)
            yield from store.finish(claim, kept_of(rules, response))
            return response
        recorded = False
        recorded = yield from _recorded(rules, store, claim, response)
        yield End(recorded)
    except GeneratorExit:
        raise
    except BaseException as error:
        if ended:
            store.drop(claim)
            raise
        yield End(False)
        if in_memory:
            yield from store.release(claim)
        if recorded is not None and isinstance(error, Exception) and transient(error):
            return uncommitted(error)
        raise
    return response if recorded else refused(Outcome("running", 1), claim)


def _claimed(store: Any, claim: Claim) -> Generator[Any, Any, Outcome]:
    xid = yield On(store.sql["lock"], [store.namespace, claim.key])
    if not xid:
        return Outcome("running", 1)
    outcome = outcome_of((yield On(store.sql["claim"], values(store.namespace, claim))), claim)
    if outcome.verdict == "run" and outcome.xid != xid:
        yield On(store.sql["release"], [store.namespace, claim.key, claim.owner])
        raise ConfigError(
            "transaction=: each statement of this connection is a transaction of its own (autocommit); accepted: a "
            "connection or session whose statements belong to one transaction until it is committed"
        )
    return outcome


def _recorded(rules: Rules, store: Any, claim: Claim, response: Response) -> Generator[Any, Any, bool]:
    """Writes the answer beside its effects. False: another request has executed it meanwhile."""
    finish = On(store.sql["finish"], finish_values(store.namespace, claim, kept_of(rules, response)))
    if (yield finish) is not None:
        return True
    # The handler rolled back, and went on: what it did since then is to be recorded all the same.
    outcome = yield from _claimed(store, claim)
    return outcome.verdict == "run" and (yield finish) is not None


def _state_of(error: BaseException | None) -> str:
    """The SQLSTATE of a driver's exception, or an empty text."""
    while error is not None:
        for name in ("sqlstate", "pgcode"):
            if getattr(error, name, None):
                return str(getattr(error, name))
        error = getattr(error, "orig", None) or error.__cause__
    return ""


def drive(hands: Hands, steps: Generator[Any, Any, Any]) -> Any:
    """Does what the steps ask for, on this thread."""
    try:
        wish = next(steps)
        while True:
            try:
                got = hands.do(wish)
            except BaseException as error:  # noqa: PERF203
                wish = steps.throw(error)
            else:
                wish = steps.send(got)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()
