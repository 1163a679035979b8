"""What makes entries go before their time: by key, type, tag, pattern, or all of them.

Thread rule: any thread; the `a` twins from any loop. A get that starts afterwards never sees what was there before.
Refuses to know: how the core keeps that promise (cpp/core/fence), and how entries got in.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any, Final

from stillwarm import _core, _keys, hooks
from stillwarm._durations import shown
from stillwarm._verbs import Verbs
from stillwarm.errors import ConfigError

NO_REMOTE: Final = "this version has the memory tier only; accepted: no url (memory)"


class Invalidating(Verbs):
    """The part of a Cache that turns an intent into marks, fences and removed entries."""

    __slots__ = ()

    def invalidate(
        self,
        *,
        key: str | None = None,
        type: str | None = None,
        tag: str | None = None,
        pattern: str | None = None,
        where: Any = None,
        all: bool = False,
        stale: bool = False,
        connection: Any = None,
    ) -> int | None:
        """Makes entries invalid; exactly one of key, type, tag, pattern, all says which.

        A get that starts afterwards never sees the older value, and a load that is running is not stored.

        Args:
            key: a readable key (`f.cache_key(...)`) or a direct key.
            type: name of a type: everything of its functions.
            tag: everything stored with this tag.
            pattern: a glob over readable keys: `*`, `?`, `[...]`. Reads every key.
            all: everything.
            stale: keep the entries as stale values that may be served while, or if not, a new one can be loaded.

        Returns:
            How many entries for key and pattern; None for type, tag and all, which write one mark.

        Raises:
            ConfigError: none or several intents, an unknown type, or one that needs a remote tier.
        """
        given = {"key": key, "type": type, "tag": tag, "pattern": pattern, "where": where}
        intents = [name for name, value in given.items() if value is not None] + ["all"] * bool(all)
        if len(intents) != 1:
            named = " and ".join(intents) or "none"
            raise ConfigError(
                f"invalidate() got {named}: accepted: exactly one of key=, type=, tag=, pattern=, where=, all=True"
            )
        if where is not None or connection is not None:
            raise ConfigError(
                f"{'where' if connection is None else 'connection'}= needs the PostgreSQL tier; {NO_REMOTE}"
            )
        intent = intents[0]
        if intent != "all" and (not isinstance(given[intent], str) or not given[intent]):
            raise ConfigError(f"{intent}={shown(given[intent])}: accepted: a str that is not empty")
        count: int | None = None
        if key is not None:
            count = self._invalidate_text(key, stale)
        elif pattern is not None:
            count = self._invalidate_pattern(pattern, stale)
        elif tag is not None:
            _core.mark(self, "tag", _core.tag_fingerprint(tag), stale)
        elif type is not None:
            if type not in self._type_ids:
                raise ConfigError(f"type={shown(type)}: accepted: {', '.join(map(repr, self._type_ids))}")
            _core.mark(self, "type", self._type_ids[type], stale)
        else:
            _core.mark(self, "all", 0, stale)
        if self._hooks:
            self._emit(hooks.Invalidated(intent, str(given.get(intent, "")), stale))
        return count

    async def ainvalidate(self, **intent: Any) -> int | None:
        """`invalidate` for coroutines."""
        return self.invalidate(**intent)

    def clear(self) -> None:
        """Removes every entry at once; loads in flight are not stored. Counts stay."""
        _core.clear(self, -1)
        self._emit(hooks.Invalidated("all", "", False))

    async def aclear(self) -> None:
        """`clear` for coroutines."""
        self.clear()

    def _invalidate_stored(self, scope: int, key: Any, stale: bool) -> bool:
        there = _core.invalidate_key(self, scope, key, stale)
        if self._hooks:
            self._emit(hooks.Invalidated("key", self._readable(scope, key), stale))
        return there

    def _invalidate_text(self, text: str, stale: bool) -> int:
        count = sum(_core.invalidate_key(self, scope, text, stale) for scope in (0, *self._keyed.values()))
        for number, scope in list(self._scopes.items()):
            if scope.keyed or not (text == scope.name or text.startswith(scope.name + ":")):
                continue
            try:
                items = _keys.parse(text[len(scope.name) + 1 :]) if text != scope.name else ()
                if _keys.readable(scope.name, items) != text:
                    raise ValueError("another way to write it")
                key = items[0] if _core.is_single(self, number) and len(items) == 1 else items
            except ValueError:
                count += self._invalidate_matching(lambda readable: readable == text, stale, number)
            else:
                count += _core.invalidate_key(self, number, key, stale)
        return count

    def _invalidate_pattern(self, pattern: str, stale: bool) -> int:
        matches = re.compile(fnmatch.translate(pattern)).match
        return self._invalidate_matching(lambda readable: matches(readable) is not None, stale, -1)

    def _invalidate_matching(self, matches: Callable[[str], bool], stale: bool, scope: int) -> int:
        _core.fence_pattern(self)  # first: what is being loaded now is not stored
        count = 0
        for number, key, *_ in _core.snapshot(self, scope):
            if matches(self._readable(number, key)):
                count += _core.invalidate_key(self, number, key, stale)
        return count
