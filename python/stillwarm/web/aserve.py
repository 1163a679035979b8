"""How a request is answered by way of the cache, in a task: the twin of `serve`, with the same rules.

Thread rule: each coroutine runs on its request's loop.
Refuses to know: what `serve` refuses.
"""

from __future__ import annotations

from typing import Any

from stillwarm import _aload
from stillwarm.web.front import Front
from stillwarm.web.serve import ONCE_MORE, TRIES, Ask, failed, first_step, taken


class AsyncAsk(Ask):
    """`Ask` whose `fetch` is a coroutine function."""

    __slots__ = ()

    async def load(self) -> Any:
        try:
            response = await self.fetch(self.prepare())
        except Exception as error:
            raise self.raised(error) from error
        return self.judged(response)


async def respond(front: Front, ask: AsyncAsk) -> tuple[str, Any]:
    """`serve.respond` for coroutines."""
    try:
        reason = first_step(front, ask)
        if reason is not None:
            return "pass", reason
        anew = ask.question.reload
        for _ in range(TRIES):
            value = await (_aload.areload(ask) if anew else _aload.run(ask))
            kind, what = taken(front, ask, value)
            if kind not in ONCE_MORE:
                break
            anew = anew or kind == "reload"
        else:
            return "pass", "variants"
    except Exception as error:
        kind, what = failed(front, ask, error)
    if kind == "raise":
        raise what
    return kind, what
