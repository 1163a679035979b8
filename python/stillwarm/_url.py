"""URLs of remote tiers: what can be seen to be wrong before anybody connects, and what a log may show of them.

Thread rule: pure functions, any thread.
Refuses to know: connections. What only the server knows (password, rights) is not checked here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from stillwarm import _core
from stillwarm._durations import shown
from stillwarm.errors import ConfigError

_POSTGRES: Final = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
# Every hot statement has an index for it, and is planned once per connection.
# As rows are read back: dates and bytes are written so, whatever the database's own settings are.
_FORMATS: Final = "-c DateStyle=ISO -c bytea_output=hex"
_PLANS: Final = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c jit=off"
_NEEDS: Final = "libpq-dev libzstd-dev libxxhash-dev"


def without_password(url: object) -> str:
    """The URL as it may be shown: `***` in place of a password, also of one in its parameters."""
    if not isinstance(url, str):
        return shown(url)
    text = re.sub(r"//([^/?#]*)@", _hidden_user, url, count=1)
    return shown(re.sub(r"(?i)(password|passfile|sslpassword)=[^&#\s]*", r"\1=***", text))


def _hidden_user(match: re.Match[str]) -> str:
    user, colon, _ = match[1].partition(":")
    return f"//{user}{':***' if colon else ''}@"


def scheme_of(url: object) -> str:
    """The kind of tier that a URL means, "postgresql", if this version has it.

    Raises:
        ConfigError: it is none; names what is accepted.
    """
    accepted = "accepted: postgresql://user@host:5432/database"
    if not isinstance(url, str) or not url:
        raise ConfigError(f"url={without_password(url)}: {accepted}")
    if _POSTGRES.match(url):
        if not hasattr(_core, "PostgresTier"):
            raise ConfigError(
                f"url={without_password(url)}: this build of stillwarm has no PostgreSQL tier: install the Debian "
                f"packages {_NEEDS} and then stillwarm from source, or use a wheel"
            )
        return "postgresql"
    if re.match(r"(?i)(rediss?|valkeys?)://", url):
        raise ConfigError(f"url={without_password(url)}: this version has no Redis tier; {accepted}")
    raise ConfigError(f"url={without_password(url)}: {accepted}")


def connection_string(url: str, *, connect_timeout: int, statement_timeout: int | None) -> str:
    """What libpq is given: the URL with our settings, where it has none of its own.

    Args:
        connect_timeout: s; libpq takes 2 and more.
        statement_timeout: ms; None: behind a pooler, which takes no settings of a session.

    Raises:
        ConfigError: libpq cannot read it.
    """
    url = _POSTGRES.sub("postgresql://", url, count=1)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises if it is no number
    except ValueError as error:
        raise ConfigError(f"url={without_password(url)}: {error}") from None
    query = dict(_pairs(parts))
    query.setdefault("connect_timeout", str(max(2, connect_timeout)))
    query.setdefault("application_name", "stillwarm")
    query["client_encoding"] = "UTF8"
    if statement_timeout is not None:
        ours = f"-c statement_timeout={statement_timeout} {_FORMATS} {_PLANS}"
        query["options"] = f"{ours} {query.get('options', '')}".strip()
    # libpq reads %20 and no plus sign.
    text = parts._replace(query=urlencode(query, quote_via=quote), fragment="").geturl()
    problem = _core.check_connection_string(text)
    if problem:
        secret = unquote(parts.password or "")
        if (secret and secret in problem) or "://" in problem:
            problem = "libpq cannot read it"
        raise ConfigError(f"url={without_password(url)}: {problem}; accepted: postgresql://user@host:5432/database")
    return text


def _pairs(parts: SplitResult) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, parts.query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"url: the parameter {shown(name)} has no value; accepted: name=value")
        pairs.append((unquote(name), unquote(value)))
    return pairs


def is_unprotected(url: str) -> bool:
    """Whether what goes to this server could be read or changed on its way: another host, and TLS is not verified."""
    parts = urlsplit(url)
    query = dict(_pairs(parts))
    host = query.get("host") or parts.hostname or ""
    if not host or host.startswith("/") or host == "localhost":
        return False
    try:
        if ipaddress.ip_address(host).is_loopback:
            return False
    except ValueError:
        pass
    return query.get("sslmode") not in ("verify-ca", "verify-full")
