"""How a request is answered by way of the cache, in a task: the twin of `serve`, with the same rules.

Thread rule: each coroutine runs on its request's loop.
Refuses to know: what `serve` refuses.
"""

from __future__ import annotations

from typing import Any

from stillwarm import _aload
from stillwarm.errors import LoadTimeout, RecursiveLoadError
from stillwarm.web.facts import AppRaisedError, ServerSideError
from stillwarm.web.front import Front
from stillwarm.web.serve import TRIES, Ask, erred, first_step, rendered, settle


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
    raised: Exception | None = None
    try:
        reason = first_step(front, ask)
        if reason is not None:
            return "pass", reason
        anew = ask.question.reload
        for _ in range(TRIES):
            value = await (_aload.areload(ask) if anew else _aload.run(ask))
            kind, what = settle(front, ask, value)
            if kind == "look":
                again = front.core.look(ask.raw, *ask.looked)
                if isinstance(again, tuple):
                    return "answer", again
                ask.question = again
                continue
            if kind == "reload":
                anew = True
                continue
            kind, what = rendered(front, ask, kind, what)
            if kind != "raise":
                return kind, what
            raised = what
            break
        else:
            return "pass", "variants"
    except AppRaisedError as error:
        if not error.shareable and not ask.failed:
            return "pass", "error"
        raised = error.error
    except ServerSideError as error:
        kind, what = erred(front, ask, error)
        if kind != "raise":
            return kind, what
        raised = what
    except (LoadTimeout, RecursiveLoadError) as error:  # another's load takes too long, or waits for this very request
        return "pass", "timeout" if isinstance(error, LoadTimeout) else "recursive"
    except Exception as error:
        front.warn("internal", repr(error))
        return "pass", "internal"
    assert raised is not None
    raise raised
