"""Which names the app's open transactions invalidate: until their end is known, memory keeps nothing of them (I2).

Thread rule: any thread; one short lock, under which nothing is called.
Refuses to know: connections, polls, what a name concerns.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable


class Pending:
    """Names by the transactions that invalidate them; a name may be in several."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, set[str]] = {}  # name -> numbers of transactions, or tickets of those without one yet
        self._tickets = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._names)

    def concerns(self, names: Iterable[str]) -> bool:
        """Whether a transaction may be about to invalidate one of these."""
        return any(name in self._names for name in names)

    def hold(self, names: Iterable[str]) -> str:
        """Before the transaction is told; gives a ticket."""
        with self._lock:
            ticket = f"?{next(self._tickets)}"
            for name in names:
                self._names.setdefault(name, set()).add(ticket)
        return ticket

    def told(self, names: Iterable[str], ticket: str, number: str | None) -> None:
        """The transaction has the rows, and this number. None: it has not."""
        with self._lock:
            for name in names:
                of = self._names.get(name, set())
                of.discard(ticket)
                if number is not None:
                    of.add(number)
                if not of:
                    self._names.pop(name, None)

    def asked(self) -> list[tuple[str, str]]:
        """Names and transactions whose end is awaited."""
        with self._lock:
            return [(name, number) for name, of in self._names.items() for number in of if number[0] != "?"]

    def ended(self, name: str, number: str) -> None:
        """That transaction is over."""
        self.told([name], number, None)

    def clear(self) -> None:
        """In the child of a fork: the transactions are the parent's, and memory is untrusted. Its lock is a new one."""
        self._lock = threading.Lock()
        self._names = {}


__all__ = ["Pending"]
