"""Invalidation with a remote tier: told to the tier, and heard from other processes.

Thread rule: generators of steps (see _tier), any thread, any loop; `apply` on the thread that found a message.
Refuses to know: how the tier keeps marks (core/remote/postgres_sql), and what memory does with an intent.

    told:   the tier first, then memory, then the others. What the tier does not take waits for it, and until then what
            it has under that name is not read (E6)
    heard:  "all" "type:<type>" "tag:<tag>" "key:<key>" "pattern:<glob>" "fence"
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stillwarm import _core, _dictionaries
from stillwarm._target import AWAY, CONFIRMED, NOT_ASKED
from stillwarm._tier import Steps
from stillwarm._tier_health import REJECTED, Error

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier
    from stillwarm._tier_transactions import Held

_log = logging.getLogger("stillwarm")


def names_of(intent: str, name: str) -> list[str]:
    """What an intent is called in the tier."""
    if intent == "all":
        return ["all"]
    if intent == "type" and name == "default":
        return ["type:default", "type:direct"]  # the direct verbs have a type of their own there
    return [f"{intent}:{name}"]


def invalidate(tier: Tier, names: list[str], soft: bool) -> Steps[tuple[int, Error]]:
    """Tells the tier; (how many entries it had, the error if it did not take it: then it is owed)."""
    tier.used()
    count = 0
    failure: Error = None
    touches = any(_dictionaries.concerns(tier, name) for name in names)
    if touches:
        tier.dictionaries.doubt()
    for i, name in enumerate(names):
        request = _core.invalidation(name, soft)
        try:
            error = yield request
        except BaseException:  # cancelled: it may be done, or fail yet; twice does no harm
            for each in names:
                apply(tier.cache, each, soft)
            for each in names[i:]:
                tier.core.owe(each, soft)
            tier.core.tell()
            raise
        if error is None:
            count += request.count
            tier.core.overtaken(name)
        else:
            failure = failure or error
            tier.core.owe(name, soft)
    tier.core.tell()
    if touches:
        _dictionaries.doubted(tier.cache)
    return count, failure


def confirm(tier: Tier) -> Steps[bool]:
    """Asks the tier for what happened since it was asked last. True: memory may be trusted again."""
    if tier.away:
        return False
    cache = tier.used()
    tier.core.used()
    asked = [held for held in list(tier.pending) if held.xid is not None]
    request = _core.poll([str(held.xid) for held in asked])
    error = yield request
    if error is not None:
        return False
    outcomes = request.outcomes
    drain(cache)
    settle(tier, asked, outcomes)
    return True


def asked(tier: Tier, key: str | None) -> Steps[int]:
    """What comes of asking the tier whether memory is right of this key (None: it has no text in the tier).

    Of a tier that is several servers one may be away, and then memory as a whole is never confirmed. What concerns a
    key is told by the server that has it, so its word is enough.
    """
    if key is None or not tier.in_parts:
        return NOT_ASKED if (yield from confirm(tier)) else AWAY
    cache = tier.used()
    tier.core.used()
    drain(cache)
    if tier.core.trusts(key):
        return CONFIRMED
    if (yield from confirm(tier)):
        return NOT_ASKED
    drain(cache)
    return CONFIRMED if tier.core.trusts(key) else AWAY


def settle(tier: Tier, asked: list[Held], outcomes: list[str]) -> None:
    """Transactions that invalidate on commit: those that ended bind memory no more."""
    cache = tier.cache
    for held, outcome in zip(asked, outcomes, strict=False):
        if outcome == "in progress":
            continue
        # Committed, rolled back, or so long ago that nobody knows. What was loaded while it was open may be of before.
        for name in held.names:
            if outcome != "aborted":
                tier.core.overtaken(name)
            apply(cache, name, False)
        if held in tier.pending:
            tier.pending.remove(held)


def drain(cache: Cache) -> None:
    """Applies what other processes said. Called before memory is looked at; never raises."""
    tier = cache._tier
    if tier is None:
        return
    messages, until = tier.core.messages()
    for name, soft in messages:
        try:
            apply(cache, name, soft)
        except Exception:  # noqa: PERF203  # each message for itself
            _log.exception("a message could not be applied: %s; everything in memory is invalidated", name)
            _core.mark(cache, "all", 0, False)
    tier.core.applied(until)


def apply(cache: Cache, name: str, soft: bool) -> None:
    """One message, in memory."""
    if cache._tier is not None and _dictionaries.concerns(cache._tier, name):
        _dictionaries.doubted(cache)
    intent, _, what = name.partition(":")
    if intent == "all":
        _core.mark(cache, "all", 0, soft)
    elif intent == "type":
        number = cache._type_ids.get(what)
        if number is not None:
            _core.mark(cache, "type", number, soft)
    elif intent == "tag":
        _core.mark(cache, "tag", _core.tag_fingerprint(what), soft)
    elif intent == "key":
        cache._invalidate_text(what, soft)
    elif intent == "pattern":
        cache._invalidate_pattern(what, soft)
    else:
        _core.fence_pattern(cache)


__all__ = ["REJECTED", "apply", "confirm", "drain", "invalidate", "names_of", "settle"]
