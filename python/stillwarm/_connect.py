"""A server for tools that have no Cache: its URL, shown without a password, and a Query of it.

Thread rule: any thread; a Query has as many connections as it needs, 16 at most; of Redis two.
Refuses to know: what is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit

from stillwarm import _core
from stillwarm._sql_types import Row, Text
from stillwarm._tier_health import raised
from stillwarm._url import (
    connection_string,
    hidden_password,
    is_unprotected,
    redis_address,
    scheme_of,
    split,
    usable_redis_address,
    without_password,
)
from stillwarm.errors import ConfigError, TierRejected, TierTimeout

VARIABLES = ("STILLWARM_URL", "DATABASE_URL", "REDIS_URL")
_SECOND: Final = 1_000_000_000
_LONGEST: Final = 86_400  # s: an index on a large table takes its time, and Ctrl-C is always there
_CANCELED: Final = "57014"
_SCHEME = re.compile(r"(?:postgresql|postgres)(?:\+\w+)?://")  # an app's URL may name its driver


def url_of(given: str | None, environment: Mapping[str, str] = os.environ, *, only_sql: str = "") -> str:
    """The URL that was given, or that of the environment.

    Args:
        only_sql: what it is wanted for, where only PostgreSQL will do.

    Raises:
        ConfigError: there is none, or it is not accepted; names where it came from, and never the password.
    """
    where, url = "url", given
    if not url:
        for name in VARIABLES:
            if environment.get(name):
                where, url = name, environment[name]
                break
    if not url:
        raise ConfigError(f"no URL: give --url, or set {', '.join(VARIABLES[:-1])} or {VARIABLES[-1]}")
    shown = shown_url(url)
    accepted = "accepted: postgresql://user@host/database" + ("" if only_sql else " or redis://host:6379/0")
    found = _SCHEME.match(url)
    if found is None:
        try:
            is_redis = scheme_of(url) == "redis"
            if is_redis:
                redis_address(url)
        except ConfigError as error:
            reason = str(error).removeprefix(f"url={without_password(url)}: ")
            raise ConfigError(f"{where}={shown!r}: {accepted if reason.startswith('accepted') else reason}") from None
        if is_redis and only_sql:
            raise ConfigError(f"{where}={shown!r}: {only_sql} needs PostgreSQL: Redis has no tables; {accepted}")
        return url
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigError(f"{where}={shown!r}: the port is no number from 1 to 65535; {accepted}") from None
    return "postgresql://" + url[found.end() :]


def is_redis(url: str) -> bool:
    """Whether a URL that `url_of` has accepted is one of Redis."""
    return not url.startswith("postgresql://")


def shown_url(url: str) -> str:
    """The URL without its password."""
    return hidden_password(url)


def without_passwords(text: str, url: str) -> str:
    """A text, such as a driver's message, without the password of the URL."""
    from urllib.parse import unquote

    parts = split(url)
    secrets = [parts.password, *parse_qs(parts.query).get("password", [])]
    for secret in filter(None, secrets):
        text = text.replace(unquote(secret), "***").replace(secret, "***")
    return text


def unsafe(url: str) -> str | None:
    """Why the way to the host can be read or changed by others; None where it cannot."""
    parts = split(url)
    if is_redis(url):
        how = "with TLS that does not verify who answers" if redis_address(url).tls else "without TLS"
        return f"host {parts.hostname} is reached {how}" if is_unprotected(url) else None
    query = parse_qs(parts.query)
    host = (query.get("host") or [parts.hostname or ""])[0]
    if not host or host.startswith(("/", "127.")) or host in ("localhost", "::1"):
        return None
    mode = (query.get("sslmode") or [os.environ.get("PGSSLMODE", "prefer")])[0]
    if mode == "verify-full":
        return None
    return f"host {host} is reached with sslmode={mode}, which does not verify who answers"


class connect_query:  # noqa: N801  # used like the function that it stands for
    """A Query of the database at a URL: `query(sql, params)`. `close()` when done.

    It has no settings of its own in its sessions and prepares nothing, so that it works through a pooler too.

    Raises:
        ConfigError: the URL is not accepted, or this build has no PostgreSQL tier. When called, TierError: what the
            server or the connection said, without the URL's password.
    """

    def __init__(self, url: str) -> None:
        scheme_of(url)
        self._url = url
        text = connection_string(url, connect_timeout=5, statement_timeout=None)
        self._core = _core.PostgresTier(
            text, "tools", "tools", "tools", [], True, 16, 10 * _SECOND, 10_000, _SECOND, _SECOND
        )

    def __call__(self, sql: str, params: Sequence[Text] = ()) -> list[Row]:
        request = _core.query(sql, list(params), _LONGEST * _SECOND)
        error = self._core.run(request)
        if error is None:
            return request.rows
        failure = raised(error)
        kind = TierTimeout if error[1] == _CANCELED else type(failure)
        text = without_passwords(str(failure), self._url)
        raise TierRejected(text, error[1]) if kind is TierRejected else kind(text)

    def close(self) -> None:
        self._core.close(0)


class connect_redis:  # noqa: N801  # used like the function that it stands for
    """A namespace of the Redis at a URL: `query("command", words)`, `query("survey", ...)`. `close()` when done.

    Raises:
        ConfigError: the URL is not accepted, or this build has no Redis tier. When called, TierError: what the server
            or the connection said, without the URL's password.
    """

    def __init__(self, url: str, namespace: str) -> None:
        scheme_of(url)
        self._url = url
        self._core = _core.RedisTier(
            *usable_redis_address(url), 5 * _SECOND, namespace, f"tools-{os.urandom(8).hex()}", 1, 10 * _SECOND, 1_000,
            _SECOND, _SECOND,
        )  # fmt: skip

    def __call__(self, text: str, words: Sequence[Text]) -> list[Row]:
        request = _core.query(text, list(words), _LONGEST * _SECOND)
        self._run(request)
        return request.rows

    def invalidate(self, name: str, soft: bool) -> int:
        """What the name of the tier says, such as "tag:a": in Redis, and told to every process."""
        request = _core.invalidation(name, soft)
        request.timeout = _LONGEST * _SECOND
        self._run(request)
        return request.count

    def _run(self, request: _core.Request) -> None:
        error = self._core.run(request)
        if error is None:
            return
        failure = raised(error)
        text = without_passwords(str(failure), self._url)
        raise TierRejected(text, error[1]) if isinstance(failure, TierRejected) else type(failure)(text)

    def close(self) -> None:
        self._core.close(0)
