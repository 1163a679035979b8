"""URLs of remote tiers: what can be seen to be wrong before anybody connects, and what a log may show of them.

Thread rule: pure functions, any thread.
Refuses to know: connections. What only the server knows (password, rights) is not checked here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from stillwarm import _core
from stillwarm._durations import shown
from stillwarm._redis_tls import PARAMETERS, RedisTls
from stillwarm.errors import ConfigError

_POSTGRES: Final = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
# Every hot statement has an index for it, and is planned once per connection.
# As rows are read back: dates and bytes are written so, whatever the database's own settings are.
_FORMATS: Final = "-c DateStyle=ISO -c bytea_output=hex"
_PLANS: Final = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c jit=off"
_NEEDS: Final = "libpq-dev libhiredis-dev libzstd-dev libxxhash-dev"
_REDIS: Final = re.compile(r"(?:redis|valkey)s?://", re.IGNORECASE)
_REDIS_TLS: Final = re.compile(r"(?:redis|valkey)s(?:\+\w+)?://", re.IGNORECASE)
_UNIX: Final = re.compile(r"(?:redis\+|valkey\+)?unix://", re.IGNORECASE)
_LOOKS_LIKE_REDIS: Final = re.compile(r"(?:redis|valkey|unix)", re.IGNORECASE)
_ENCODED: Final = "in a user or a password '/' '?' '#' '@' '%' are written as %2F %3F %23 %40 %25"
_CLUSTER: Final = re.compile(r"(?:redis|valkey)s?\+cluster://", re.IGNORECASE)
_SENTINEL: Final = re.compile(r"(?:redis|valkey)s?\+sentinel://", re.IGNORECASE)
_RFC_3986: Final = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_PLACE: Final = re.compile(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^\[\]:,\s]+))(?::(\d{1,5}))?", re.ASCII)
_ACCEPTED: Final = "accepted: postgresql://user@host:5432/database or redis://host:6379/0"
_ACCEPTED_REDIS: Final = "accepted: redis://user:password@host:6379/0 or unix:///path/to/socket?db=0"
_ACCEPTED_CLUSTER: Final = "accepted: redis+cluster://user:password@host1:7000,host2:7001"
_ACCEPTED_SENTINEL: Final = "accepted: redis+sentinel://user:password@host1:26379,host2:26379/service_name/0"


def split(url: str) -> SplitResult:
    """`urlsplit` (RFC 3986, appendix B) of one that may have several hosts, of which newer Pythons refuse `[::1]`."""
    match = _RFC_3986.fullmatch(url)
    assert match is not None  # everything matches
    return SplitResult(*(part or "" for part in match.groups()))


def without_password(url: object) -> str:
    """The URL as it may be shown: `***` in place of a password, also of one in its parameters.

    A password that should have been percent-encoded may have any character in it: everything up to the last @ counts.
    """
    if not isinstance(url, str):
        return shown(url)
    return shown(hidden_password(url))


def hidden_password(url: str) -> str:
    """The same as plain text."""
    text = re.sub(r"//(.*)@", _hidden_user, url, count=1, flags=re.DOTALL)
    return re.sub(r"(?i)(password|passfile|sslpassword)=[^&#\s]*", r"\1=***", text)


def _hidden_user(match: re.Match[str]) -> str:
    user, colon, _ = match[1].partition(":")
    if not colon and _LOOKS_LIKE_REDIS.match(match.string):
        return "//***@"  # often a password that lacks its colon
    return f"//{user}{':***' if colon else ''}@"


def scheme_of(url: object) -> str:
    """The kind of tier that a URL means, "postgresql" or "redis", if this build has it.

    Raises:
        ConfigError: it is none; names what is accepted.
    """
    if not isinstance(url, str) or not url:
        raise ConfigError(f"url={without_password(url)}: {_ACCEPTED}")
    if _POSTGRES.match(url):
        kind, name, core = "postgresql", "PostgreSQL", "PostgresTier"
    elif _REDIS.match(url) or _UNIX.match(url) or _SENTINEL.match(url) or _CLUSTER.match(url):
        kind, name, core = "redis", "Redis", "RedisTier"
        if _REDIS_TLS.match(url) and not getattr(_core, "REDIS_TLS", False):
            raise ConfigError(
                f"url={without_password(url)}: this build of stillwarm has no TLS for Redis (it needs hiredis 1.0 or "
                "newer with TLS); nothing is sent unencrypted in its place. Accepted: redis:// in a trusted network, "
                "or a tunnel"
            )
    else:
        raise ConfigError(f"url={without_password(url)}: {_ACCEPTED}")
    if not hasattr(_core, core):
        raise ConfigError(
            f"url={without_password(url)}: this build of stillwarm has no {name} tier: install the Debian packages "
            f"{_NEEDS} and then stillwarm from source, or use a wheel"
        )
    return kind


class RedisAddress(NamedTuple):
    """Where a Redis server is, and who asks: what a URL says."""

    host: str  # or the path of a Unix socket
    port: int
    database: int
    user: str
    password: str
    places: tuple[tuple[str, int], ...] = ()  # of several servers: hosts and ports of all
    service: str = ""  # what the sentinels at these places call it
    cluster: bool = False  # these places are nodes of one
    tls: RedisTls | None = None  # None: in the clear, or a Unix socket


def redis_address(url: str) -> RedisAddress:
    """What a `redis://`, `unix://`, `redis+sentinel://` or `redis+cluster://` URL says; with TLS `rediss` in place of
    `redis`.

    Raises:
        ConfigError: it cannot be read; names what is accepted, and never the password.
    """
    if _SENTINEL.match(url):
        return _sentinel_address(url)
    if _CLUSTER.match(url):
        return _cluster_address(url)

    def refused(why: str) -> ConfigError:
        return ConfigError(f"url={without_password(url)}: {why}; {_ACCEPTED_REDIS}")

    is_path = _UNIX.match(url) is not None
    try:
        parts = urlsplit(url)
        port = parts.port  # raises if it is no number, and would show it
    except ValueError:
        raise refused(f"the port is no number from 1 to 65535; {_ENCODED}") from None
    if parts.fragment or url.endswith("#") or (not is_path and "@" in parts.path + parts.query):
        raise refused(f"a '#' or a second '@'; {_ENCODED}")
    if port == 0:
        raise refused("the port is no number from 1 to 65535")
    given = _pairs(parts)
    tls, pairs = _tls(url, given, refused)
    query = dict(pairs)
    unknown = sorted(query.keys() - {"db"})
    if unknown:
        known = "the only one is db" if tls is None else f"they are db, {', '.join(PARAMETERS)}"
        raise refused(f"the parameter {shown(unknown[0])} is not known: {known}")
    if is_path:
        host, place = unquote(parts.path), ""
        if not host.startswith("/") or host == "/" or parts.hostname or port:
            raise refused("a Unix socket has an absolute path and no host")
    else:
        host, place = parts.hostname or "localhost", parts.path.strip("/")
    if len(pairs) + bool(place) > 1:
        raise refused("the database is given twice")
    database = query.get("db", place or "0")
    if not re.fullmatch(r"\d{1,6}", database, re.ASCII):
        raise refused(f"the database {shown(database)} is no number from 0 to 999999")
    user, password = _decoded(parts.username), _decoded(parts.password)
    if user is None or password is None or "\0" in host:
        raise refused("what follows a % is no character of UTF-8")
    if user and not password:
        raise refused("a user without a password; a password alone is written redis://:password@host")
    return RedisAddress(host, port or 6379, int(database), user, password, tls=tls)


def _tls(
    url: str, given: list[tuple[str, str]], refused: Callable[[str], ConfigError]
) -> tuple[RedisTls | None, list[tuple[str, str]]]:
    """What a URL says of TLS, and its other parameters."""
    if _REDIS_TLS.match(url) is None:
        about = next((name for name, _ in given if name.startswith("ssl")), None)
        if about is not None:
            raise refused(f"the parameter {shown(about)} is of TLS, whose scheme is rediss")
        return None, given
    try:
        tls = RedisTls.of([pair for pair in given if pair[0] in PARAMETERS])
    except ValueError as error:
        raise refused(str(error)) from None
    return tls, [pair for pair in given if pair[0] not in PARAMETERS]


def usable_redis_address(url: str) -> RedisAddress:
    """`redis_address` of a URL that is about to be used: the files that it names are there.

    Raises:
        ConfigError: as there, or a file is not what it should be.
    """
    address = redis_address(url)
    if address.tls is not None and (problem := _core.check_redis_tls(address.tls)):
        raise ConfigError(f"url={without_password(url)}: {problem}; accepted: names of PEM files")
    return address


def _decoded(text: str | None) -> str | None:
    """None: it cannot be."""
    try:
        plain = unquote(text or "", errors="strict")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"%(?![0-9A-Fa-f]{2})", text or "") else plain


def _sentinel_address(url: str) -> RedisAddress:
    """What a `redis+sentinel://` URL says: the account is the server's, the places are the sentinels'."""
    parts = _Parts(url, 26379, _ACCEPTED_SENTINEL)
    service, _, database = parts.path[1:].partition("/")
    name = _decoded(service)
    if not name:
        raise parts.refused("the name of the service is missing")
    if not re.fullmatch(r"\d{1,6}", database or "0", re.ASCII):
        raise parts.refused(f"the database {shown(database)} is no number from 0 to 999999")
    return RedisAddress(
        *parts.places[0], int(database or 0), parts.user, parts.password, parts.places, name, tls=parts.tls
    )


def _cluster_address(url: str) -> RedisAddress:
    """What a `redis+cluster://` URL says. A cluster has the database 0 alone."""
    parts = _Parts(url, 6379, _ACCEPTED_CLUSTER)
    database = parts.path.strip("/")
    if database not in ("", "0"):
        raise parts.refused(f"a cluster has the database 0 alone, not {shown(database)}")
    return RedisAddress(*parts.places[0], 0, parts.user, parts.password, parts.places, cluster=True, tls=parts.tls)


class _Parts:
    """The parts of a URL with several hosts.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, url: str, default_port: int, accepted: str) -> None:
        self._shown, self._accepted = without_password(url), accepted
        parts = split(url)
        if "@" in parts.path + parts.query + parts.fragment or url.endswith("#"):
            raise self.refused(f"a '#' or a second '@'; {_ENCODED}")
        self.tls, others = _tls(url, _pairs(parts), self.refused)
        if others or parts.fragment:
            known = "" if self.tls is None else f" but {', '.join(PARAMETERS)}"
            raise self.refused(f"it has no parameters{known}")
        account, _, hosts = parts.netloc.rpartition("@")
        if "@" in account:
            raise self.refused(f"a '#' or a second '@'; {_ENCODED}")
        self.path = parts.path
        self.places = tuple(self._place(text, default_port) for text in hosts.split(","))
        user, password = (_decoded(text) for text in account.partition(":")[::2])
        if user is None or password is None:
            raise self.refused("what follows a % is no character of UTF-8")
        if user and not password:
            raise self.refused("a user without a password; a password alone is written ://:password@host")
        self.user, self.password = user, password

    def _place(self, text: str, default_port: int) -> tuple[str, int]:
        match = _PLACE.fullmatch(text)
        port = int(match[3] or default_port) if match else 0
        if match is None or not 0 < port < 65536:
            raise self.refused(f"{shown(text)} is no host with a port")
        return match[1] or match[2], port

    def refused(self, why: str) -> ConfigError:
        return ConfigError(f"url={self._shown}: {why}; {self._accepted}")


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
    except ValueError:
        raise ConfigError(f"url={without_password(url)}: the port is no number from 1 to 65535; {_ENCODED}") from None
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
    if _UNIX.match(url):
        return False
    parts = split(url)
    query = dict(_pairs(parts))
    if _REDIS_TLS.match(url) and query.get("ssl_cert_reqs") != "none":
        return False
    if "," in parts.netloc:
        hosts = parts.netloc.rpartition("@")[2].split(",")
        return any(is_unprotected(f"redis://{host}") for host in hosts)
    host = query.get("host") or parts.hostname or ""
    if not host or host.startswith("/") or host == "localhost":
        return False
    try:
        if ipaddress.ip_address(host).is_loopback:
            return False
    except ValueError:
        pass
    return query.get("sslmode") not in ("verify-ca", "verify-full")


def protection(url: str) -> str:
    """What whoever is warned of an unprotected URL can do."""
    if _POSTGRES.match(url):
        return "; add ?sslmode=verify-full"
    if _REDIS_TLS.match(url):
        return (
            ", and so does the password: ssl_cert_reqs=none believes whoever answers, who reads it and can change what "
            "is served; leave it out, and name your authority's certificate with ssl_ca_certs="
        )
    return (
        ", and so does the password: whoever is on the way reads it and can change what is served; use rediss://, a "
        "tunnel (stunnel, WireGuard) or a Unix socket"
    )
