"""Commands to the masters of a Redis Cluster: a conversation with each, found by the first node that answers.

Thread rule: as a RedisConversation: one thread.
Refuses to know: what is asked. The tier's own connections are hiredis's (cpp/core/remote/redis_nodes.hpp).
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

from stillwarm._ask import ServerError
from stillwarm._ask_redis import RedisConversation
from stillwarm._redis_tls import RedisTls

__all__ = ["ClusterConversation", "slot_of"]

Place = tuple[str, int]


def slot_of(key: str) -> int:
    """CRC16 of what stands in the first braces, else of all, of 16,384."""
    _, opened, rest = key.partition("{")
    inside, closed, _ = rest.partition("}")
    tag = inside if opened and closed and inside else key
    return binascii.crc_hqx(tag.encode(), 0) % 16384


class ClusterConversation:
    """The cluster as one of its nodes describes it.

    Args:
        places: nodes to ask for the others, in order.
        sign_in: what each conversation begins with.

    Attributes:
        ranges: first and last slot with the place of the master that has them.
        silent: places of the URL, and masters, that did not answer, with what was said instead.

    Raises:
        ServerError: no node answers, or the one that does is in no cluster.
    """

    def __init__(
        self, places: tuple[Place, ...], sign_in: Callable[[RedisConversation], object], tls: RedisTls | None = None
    ) -> None:
        self._sign_in, self._tls = sign_in, tls
        self._talks: dict[Place, RedisConversation] = {}
        self.silent: dict[Place, ServerError] = {}
        self.ranges: list[tuple[int, int, Place]] = []
        refused: ServerError | None = None
        try:
            for place in places:
                try:
                    told = self.to(place)("CLUSTER", "SLOTS")
                except ServerError as error:
                    refused = refused or error
                    self.silent[place] = error
                    continue
                self.first = place
                self.ranges = [(first, last, (master[0] or place[0], master[1])) for first, last, master, *_ in told]
                return
            raise refused or ServerError("no node of the cluster is named")
        except BaseException:
            self.close()
            raise

    @property
    def masters(self) -> list[Place]:
        """Those that have slots, in the order of these."""
        return list(dict.fromkeys(place for _, _, place in sorted(self.ranges)))

    def to(self, place: Place) -> RedisConversation:
        """A conversation with a node.

        Raises:
            ServerError: it does not answer, or refuses the account.
        """
        if place not in self._talks:
            talk = RedisConversation(*place, tls=self._tls)
            try:
                self._sign_in(talk)
            except ServerError:
                talk.close()
                raise
            self._talks[place] = talk
        return self._talks[place]

    def master_of(self, key: str) -> Place | None:
        """Who has the key's slot."""
        slot = slot_of(key)
        return next((place for first, last, place in self.ranges if first <= slot <= last), None)

    def close(self) -> None:
        for talk in self._talks.values():
            with contextlib.suppress(OSError):
                talk.close()
        self._talks.clear()

    def __enter__(self) -> ClusterConversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def of(self, key: str) -> Any:
        """The conversation with who has the key's slot.

        Raises:
            ServerError: nobody has it, or the master does not answer.
        """
        place = self.master_of(key)
        if place is None:
            raise ServerError(f"CLUSTERDOWN nobody has slot {slot_of(key)}")
        return self.to(place)
