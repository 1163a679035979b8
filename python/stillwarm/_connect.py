"""A URL of a PostgreSQL server: how it is shown without its password, and whether the way to it is safe.

Thread rule: pure functions, any thread.
Refuses to know: connections.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from stillwarm.errors import ConfigError

VARIABLES = ("STILLWARM_URL", "DATABASE_URL")
_SCHEME = re.compile(r"(?:postgresql|postgres)(?:\+\w+)?://")  # an app's URL may name its driver
_PASSWORD = re.compile(r"(//[^/@]*?:)[^@/]*@|((?:^|[?&])(?:ssl)?password=)[^&]*", re.IGNORECASE)


def url_of(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The URL that was given, or that of the environment.

    Raises:
        ConfigError: there is none, or it is not one of PostgreSQL; names where it came from, and never the password.
    """
    where, url = "url", given
    if not url:
        for name in VARIABLES:
            if environment.get(name):
                where, url = name, environment[name]
                break
    if not url:
        raise ConfigError(f"no URL: give --url, or set {' or '.join(VARIABLES)}")
    found = _SCHEME.match(url)
    if found is None:
        raise ConfigError(f"{where}={shown_url(url)!r}: accepted: postgresql://user@host/database")
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise ConfigError(f"{where}={shown_url(url)!r}: {error}; accepted: postgresql://user@host/database") from None
    return "postgresql://" + url[found.end() :]


def shown_url(url: str) -> str:
    """The URL without its password."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", url)


def without_passwords(text: str, url: str) -> str:
    """A text, such as a driver's message, without the password of the URL."""
    from urllib.parse import unquote

    parts = urlsplit(url)
    secrets = [parts.password, *parse_qs(parts.query).get("password", [])]
    for secret in filter(None, secrets):
        text = text.replace(unquote(secret), "***").replace(secret, "***")
    return text


def unsafe(url: str) -> str | None:
    """Why the way to the host can be read or changed by others; None where it cannot."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    host = (query.get("host") or [parts.hostname or ""])[0]
    if not host or host.startswith(("/", "127.")) or host in ("localhost", "::1"):
        return None
    mode = (query.get("sslmode") or [os.environ.get("PGSSLMODE", "prefer")])[0]
    if mode == "verify-full":
        return None
    return f"host {host} is reached with sslmode={mode}, which does not verify who answers"
