"""Records of idempotency keys in PostgreSQL: claims are committed rows, whose leases are renewed while they run.

Thread rule: any thread, any loop. One daemon thread per store renews leases and writes what is owed; it ends when there
is nothing to do for a minute.
Refuses to know: HTTP, and who waits for the statements. They are the core's (cpp/core/antidup/idempotency.hpp).

Fails closed: where the record cannot be written, the caller is told so and does not run. A claim whose answer was lost
is asked for again by its owner, which wins if the first one was done. What finishes a record is tried until it is
written, as long as the process lives; till then the lease goes on.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from stillwarm import _core
from stillwarm._idempotency import (
    Ask,
    Claim,
    Kept,
    Migrate,
    Outcome,
    Steps,
    Unknown,
    finish_values,
    outcome_of,
    unknown_of,
    values,
)
from stillwarm._sql_types import quoted
from stillwarm.errors import TierError, TierRejected

if TYPE_CHECKING:
    from stillwarm._tier import Tier

_MOST_OWED: Final = 10_000  # records that the database has not taken yet
_PATIENCE: Final = 2_000_000_000  # ns for a statement that is asked a second time
_MISSING: Final = ("42P01", "3F000")  # a table, a schema
_AGAIN: Final = ("40001", "40P01", "55P03", "57014", "57P01", "53300", "25006")
_EVERY: Final = 1.0  # s between looks at the leases
_IDLE: Final = 60  # looks without work after which the thread ends

_log = logging.getLogger("stillwarm")


class PostgresStore:
    """Records in the tier's schema. A claim is a committed row, whose lease is renewed while its request runs."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.namespace = tier.namespace
        self.sql = _core.idempotency_sql(quoted(tier.schema))
        self._made = False
        self.reset()

    def reset(self) -> None:
        """As new: in the child of a fork, since what the parent runs is the parent's to renew."""
        self._lock = threading.Lock()
        self._live: dict[str, tuple[Claim, float]] = {}  # by owner; and when it has to be renewed
        self._owed: deque[Ask] = deque()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def ready(self) -> Steps[None]:
        """Once: makes the tables where they are missing. For who claims on a connection of its own."""
        if not self._made:
            rows = yield from self._sure("SELECT to_regclass($1)", [f"{quoted(self.tier.schema)}.idempotency"])
            if rows[0][0] is None:
                yield Migrate()
            self._made = True

    def claim(self, claim: Claim) -> Steps[Outcome]:
        """Takes the key, or says why not.

        Raises:
            TierError: it is not known to be taken; then nothing may run.
        """
        self.tier.used()
        try:
            rows = yield from self._sure(self.sql["claim"], values(self.namespace, claim))
        except TierError:
            self._owe(self._release(claim))  # it may be taken all the same
            raise
        outcome = outcome_of(rows[0][0] if rows else None, claim)
        if outcome.verdict == "run":
            self._hold(claim)
        return outcome

    def finish(self, claim: Claim, kept: Kept) -> Steps[None]:
        """Keeps the answer; at once, or as soon as the database takes it."""
        asks = self.sql["finish"], finish_values(self.namespace, claim, kept)
        try:
            yield from self._sure(*asks)
        except TierError as error:
            _log.warning("idempotency: the record of %s is not written yet, and is tried again: %s", claim.route, error)
            self._owe(Ask(*asks, _PATIENCE))
            return  # held until then
        self.drop(claim)

    def release(self, claim: Claim) -> Steps[None]:
        """Frees the key: the same request may run again."""
        self.drop(claim)
        ask = self._release(claim)
        try:
            yield from self._sure(ask.text, ask.params)
        except TierError:
            self._owe(ask)

    def forget(self, key: str) -> Steps[bool]:
        """Frees a key whose outcome is unknown."""
        rows = yield from self._sure(self.sql["forget"], [self.namespace, key])
        return bool(rows)

    def unknown(self, most: int, record: str | None = None) -> Steps[list[Unknown]]:
        """The keys whose outcome is unknown, or one of them. Makes no table: who looks changes nothing."""
        try:
            rows = yield Ask(self.sql["unknown"], [self.namespace, str(most), record], _PATIENCE)
        except TierRejected as error:
            if error.sqlstate not in _MISSING:
                raise
            return []
        return unknown_of(rows)

    def drop(self, claim: Claim) -> None:
        """Does not renew it any more: what it did is unknown when its lease ends."""
        with self._lock:
            self._live.pop(claim.owner, None)

    def _release(self, claim: Claim) -> Ask:
        return Ask(self.sql["release"], [self.namespace, claim.key, claim.owner], _PATIENCE)

    def _sure(self, text: str, params: list[str | None]) -> Steps[list[tuple[str | None, ...]]]:
        """Asks, and asks once more where that may help. Every statement here may be done twice."""
        try:
            return (yield Ask(text, params))  # type: ignore[no-any-return]
        except TierRejected as error:
            if error.sqlstate in _MISSING:
                yield Migrate()
            elif error.sqlstate not in _AGAIN:
                raise
        except TierError:
            pass
        return (yield Ask(text, params, _PATIENCE))  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------------------- leases

    def _hold(self, claim: Claim) -> None:
        with self._lock:
            self._live[claim.owner] = claim, time.monotonic() + claim.lease / 3e9
        self._start()

    def _owe(self, ask: Ask) -> None:
        with self._lock:
            if len(self._owed) < _MOST_OWED:
                self._owed.append(ask)
        self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(
                target=_run, args=(weakref.ref(self), self._stop), name="stillwarm-leases", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter is going down: tried again with the next claim
                self._thread = None

    def tick(self) -> bool:
        """Writes what is owed and renews what runs. Whether there is anything of either."""
        if self.tier.closed:
            return False
        while self._owed:
            ask = self._owed[0]
            try:
                self.tier.query(ask.text, ask.params, ask.timeout / 1e9)
            except TierRejected as error:  # it always will be: the key becomes unknown, and the next one gets its turn
                _log.warning("idempotency: a record cannot be written: %s", error)
            except TierError:
                break
            self._owed.popleft()
            if ask.text == self.sql["finish"]:
                with self._lock:
                    self._live.pop(str(ask.params[2]), None)
        now = time.monotonic()
        with self._lock:
            due = [claim for claim, at in self._live.values() if at <= now]
        for lease in {claim.lease for claim in due}:
            some = [claim for claim in due if claim.lease == lease]
            keys, owners = _array(claim.key for claim in some), _array(claim.owner for claim in some)
            try:
                milliseconds = str(lease // 1_000_000)
                self.tier.query(self.sql["renew"], [self.namespace, keys, milliseconds, owners], 2.0)
            except TierError as error:
                _log.warning("idempotency: %d leases are not renewed, and are tried again: %s", len(some), error)
                continue
            with self._lock:
                for claim in some:
                    if claim.owner in self._live:
                        self._live[claim.owner] = claim, now + lease / 3e9
        return bool(self._live or self._owed)


def _array(hashes: Iterable[str]) -> str:
    return "{" + ",".join(hashes) + "}"


def _run(of: weakref.ref[PostgresStore], stop: threading.Event) -> None:
    idle = 0
    while idle < _IDLE and not stop.wait(_EVERY):
        store = of()
        if store is None or store.tier.closed:
            return
        try:
            idle = 0 if store.tick() else idle + 1
        except Exception:
            _log.exception("the leases of idempotency keys are not renewed, and are tried again")
        del store


__all__ = ["PostgresStore"]
