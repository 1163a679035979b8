"""The doctor on Redis: what is wrong with a cache there, or may hurt, and what to do about it.

Thread rule: one thread; a connection of its own, which asks what the user may ask and goes on where it may not. It
writes one lease of a second, to see whether the server takes writes, and makes no namespace.
Refuses to know: terminals, and how the tier works; that is _admin_redis's place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from stillwarm._admin_redis import RedisPlace, stats
from stillwarm._ask import ServerError
from stillwarm._ask_redis import RedisConversation
from stillwarm._cli_redis import sign_in
from stillwarm._connect import unsafe, without_passwords
from stillwarm._doctor import _EXPIRED, _REUSED, Finding, _settings
from stillwarm._doctor_census import Census, census_found
from stillwarm._url import redis_address
from stillwarm.errors import StillwarmError, TierUnavailable

_PINGS: Final = 15
_SLOW: Final = 5.0  # ms of a round trip
_SKEW: Final = 2.0  # s
# What the tier and its tools run: K is a key, C the channel.
_COMMANDS: Final = (
    "DBSIZE; DEL K; EVALSHA x 0; EXISTS K; GET K; GETRANGE K 0 1; HGET K f; HINCRBY K f 1; HLEN K; HMGET K f; "
    "HSET K f v; LLEN K; LRANGE K 0 1; LTRIM K 0 1; MGET K; PEXPIRE K 1; PING; PUBLISH C x; RPUSH K v; SCAN 0; "
    "SCRIPT LOAD x; SELECT 0; SET K v; SETRANGE K 0 v; STRLEN K; SUBSCRIBE C; TIME; UNLINK K; ZCARD K; ZINCRBY K 1 m; "
    "ZRANGE K 0 1; ZREM K m; ZREMRANGEBYRANK K 0 1; ZREVRANGE K 0 1"
)
_REFUSED: Final = {
    "NOAUTH": ("the server wants a password", "give it in the URL: redis://:password@host:6379/0"),
    "WRONGPASS": ("the server does not take the user or the password", "ACL LIST on the server names its users"),
    "ERR AUTH": ("the server has no password, and the URL gives one", "leave it out, or set requirepass on the server"),
    "ERR DB": ("the database number is out of range", "CONFIG GET databases says how many there are, 16 by default"),
    "ERR SELECT": ("the server is a node of a cluster, which has database 0 alone", "leave the number out of the URL"),
    "ERR max": ("the server has no connection left", "raise its maxclients, or look who holds them: CLIENT LIST"),
}
_GRANT: Final = "ACL SETUSER {user} on ~stillwarm:* &stillwarm:* &__redis__:invalidate +@all -@dangerous +info +scan"


def examine(place: RedisPlace, url: str, cache: Any = None) -> list[Finding]:
    """Everything that is found; [] is a clean bill of health.

    Args:
        url: how the server is reached.
        cache: the app's Cache, for what only it knows: ttl of types, load times.

    Raises:
        TierUnavailable: nobody answers.
    """
    found = reached(url)
    address = redis_address(url)
    try:
        talk = RedisConversation(address.host, address.port, tls=address.tls)
    except ServerError as error:
        raise TierUnavailable(str(error)) from None
    try:
        try:
            sign_in(talk, url)
            talk("PING")
        except ServerError as error:
            if not str(error).startswith(("NOPERM", "MISCONF", "LOADING")):  # what is behind these is found below
                return [*found, refused(without_passwords(str(error), url))]
        asks = Asks(talk, place, address.user or "default")
        found += looked(asks, _keys)
        is_there = asks.error("EXISTS", place.key("m")) is None and bool(talk("EXISTS", place.key("m")))
    finally:
        talk.close()
    if is_there and not any(one.level == "wrong" for one in found):  # the tier would make it
        found += contents(place)
    return found + _settings(cache)


def reached(url: str) -> list[Finding]:
    """What is wrong with the way to the server."""
    if not (reason := unsafe(url)):
        return []
    advice = "TLS (rediss://), a tunnel (stunnel, WireGuard), a Unix socket, or a network that nobody else is in"
    return [Finding("wrong", f"{reason}: what is cached, and the password, can be read and changed", advice)]


def looked(asks: Asks, *more: Callable[[Asks], Iterable[Finding]]) -> list[Finding]:
    """What is found on one server: what it says of itself, and what it lets the user do."""
    found: list[Finding] = []
    for look in (_server, _memory, _persistence, _writes, _scripts, _push, _rights, _way, *more):
        try:
            found += look(asks)
        except ServerError as error:  # noqa: PERF203  # each look for itself
            found.append(Finding("wrong", f"{look.__name__.lstrip('_')}: {error}", "see the other findings"))
            if str(error).startswith("Redis at "):  # the connection is gone
                break
    return found


class Asks:
    """The server's answers, and what it says of itself.

    Attributes:
        commands: what the tier and its tools run.
    """

    commands: Sequence[str] = tuple(_COMMANDS.split("; "))

    def __init__(self, talk: RedisConversation, place: RedisPlace, user: str) -> None:
        self.talk, self.place, self.user = talk, place, user
        self.info = self._info()

    def _info(self) -> dict[str, str]:
        """{} where the user may not know."""
        try:
            text = self.talk("INFO")
        except ServerError:
            return {}
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def error(self, *words: object) -> str | None:
        """What the server has against a command; None: nothing."""
        try:
            self.talk(*words)
        except ServerError as error:
            if str(error).startswith("Redis at "):
                raise
            return str(error)
        return None

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self.info.get("redis_version", "0"))[:3]))

    @property
    def grant(self) -> str:
        return _GRANT.format(user=self.user)


def refused(text: str) -> Finding:
    """What the server has against the account."""
    for word, (what, advice) in _REFUSED.items():
        if text.startswith(word):
            return Finding("wrong", f"{what}: {text}", advice)
    return Finding("wrong", f"the server refuses: {text}", "see its log")


def _server(asks: Asks) -> Iterator[Finding]:
    info = asks.info
    if not info:
        advice = f"ACL SETUSER {asks.user} +info; the rest below does not need it"
        yield Finding("note", "the user may not run INFO: version, memory, persistence and role are unknown", advice)
        return
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
    if asks.version < (5,):
        yield Finding(
            "wrong", f"the server is {name}", "stillwarm needs Redis 5 or newer, and is better off with 6 or newer"
        )
    elif asks.version < (6,):
        what = f"the server is {name}, which does not track keys: writes of others than stillwarm are not seen"
        yield Finding(
            "note", what, "Redis 6 or newer; until then let others write through stillwarm, or use short ttls"
        )
    mode = info.get("redis_mode", "standalone")
    if mode == "sentinel":
        yield Finding("wrong", "this is a sentinel, which holds no data", "give the URL of the master that it watches")
    elif mode == "cluster":
        error = asks.error("EXISTS", asks.place.key("m"))
        if error is not None:
            what = f"this node of a cluster does not serve the namespace: {error}"
            yield Finding(
                "wrong",
                what,
                "the cluster's own URL, redis+cluster://host1:port,host2:port, once it is whole (CLUSTER INFO)",
            )
    if info.get("role") == "slave":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        yield Finding("wrong", "the server is a replica and takes no writes", f"give the URL of its master, {master}")


def _memory(asks: Asks) -> Iterator[Finding]:
    info = asks.info
    if "maxmemory" not in info:
        return
    limit, used = int(info["maxmemory"]), int(info.get("used_memory", 0))
    policy = info.get("maxmemory_policy", "noeviction")
    lru = "CONFIG SET maxmemory-policy allkeys-lru, and the same in redis.conf"
    if limit == 0:
        what = "no maxmemory is set: Redis grows until the machine has no memory left, and is killed with all it holds"
        yield Finding("note", what, f"CONFIG SET maxmemory 1gb (what it may take); {lru}")
        return
    share = f"{100 * used / limit:.0f} % of {info.get('maxmemory_human', limit)} in use"
    if policy == "noeviction":
        what = f"maxmemory-policy noeviction, {share}: marks are safe; a full server stores nothing more (OOM), so that"
        what += " every miss loads, while invalidations still work"
        yield Finding("wrong" if used > 0.9 * limit else "note", what, lru)
    elif policy.startswith("volatile"):
        what = f"maxmemory-policy {policy}, {share}: marks, and entries with ttl=None, are never evicted; when these"
        what += " alone fill the memory, nothing more is stored (OOM)"
        yield Finding("note", what, f"a ttl for every type, or {lru}")
    elif policy == "allkeys-random":
        what = f"maxmemory-policy {policy}, {share}: the marks go as likely as any key, and without them the namespace"
        what += " counts as empty: nothing is ever wrong, and everything is loaded anew"
        yield Finding("note", what, f"{lru}: every look-up touches the marks, which keeps them")


def _persistence(asks: Asks) -> Iterator[Finding]:
    info = asks.info
    if info.get("rdb_last_bgsave_status", "ok") != "ok" or info.get("aof_last_write_status", "ok") != "ok":
        what = "the last write to the server's disk failed, after which it may refuse all writes (MISCONF)"
        yield Finding(
            "wrong", what, "room and rights in its folder (CONFIG GET dir), or no snapshots: CONFIG SET save ''"
        )
    if info.get("aof_enabled", "1") == "0" and info.get("rdb_last_save_time") and _snapshots(asks):
        what = "the server keeps snapshots and no log: after a crash it has the entries and the marks of the last"
        what += " snapshot, so that what was invalidated since is back"
        yield Finding("note", what, "for a cache no persistence is best (CONFIG SET save ''); else appendonly yes")


def _snapshots(asks: Asks) -> bool:
    """Whether it makes them by itself, as far as the user may know."""
    try:
        answer = asks.talk("CONFIG", "GET", "save")
    except ServerError:
        return int(asks.info.get("rdb_saves", asks.info.get("rdb_last_bgsave_time_sec", "-1"))) > 0
    return bool(answer and len(answer) > 1 and answer[1])


def _writes(asks: Asks) -> Iterator[Finding]:
    error = asks.error("SET", asks.place.key("x:doctor"), "1", "PX", "1000")
    if error is None:
        asks.error("DEL", asks.place.key("x:doctor"))
        return
    word = error.partition(" ")[0]
    advice = {
        "OOM": "a larger maxmemory, or CONFIG SET maxmemory-policy allkeys-lru",
        "READONLY": "give the URL of the master: INFO replication names it",
        "MISCONF": "room and rights in the server's folder, or CONFIG SET save ''",
        "NOPERM": asks.grant,
        "MOVED": "this is a node of a cluster, whose URL is redis+cluster://host1:port,host2:port",
        "CLUSTERDOWN": "the cluster is not whole: CLUSTER INFO",
        "LOADING": "the server reads its data: ask again in a moment",
    }.get(word, "see the server's log")
    yield Finding("wrong", f"the server takes no writes: {error}", advice)


def _scripts(asks: Asks) -> Iterator[Finding]:
    try:
        digest = asks.talk("SCRIPT", "LOAD", "return 1")
        asks.talk("EVALSHA", digest, "0")
    except ServerError as error:
        if str(error).startswith("Redis at "):
            raise
        what = f"scripts are not allowed, without which the tier stores and invalidates nothing: {error}"
        yield Finding("wrong", what, f"ACL SETUSER {asks.user} +script|load +evalsha; or {asks.grant}")


def _push(asks: Asks) -> Iterator[Finding]:
    """Client tracking. That a subscription is allowed, which would end the conversation, is found by _rights."""
    if asks.version >= (6,) or not asks.info:
        try:
            number = asks.talk("CLIENT", "ID")
            prefix = asks.place.key("e:")
            asks.talk("CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", prefix)
            asks.talk("CLIENT", "TRACKING", "OFF")
        except ServerError as error:
            if str(error).startswith("Redis at "):
                raise
            what = f"client tracking is not allowed: what others than stillwarm write or delete is not seen: {error}"
            yield Finding("note", what, f"ACL SETUSER {asks.user} +client|id +client|tracking; or {asks.grant}")


def _rights(asks: Asks) -> Iterator[Finding]:
    """By ACL DRYRUN, where the user may ask for it (Redis 7)."""
    key, channel = asks.place.key("m"), asks.place.key("c")
    denied = []
    for line in (*asks.commands, "SUBSCRIBE __redis__:invalidate"):
        words = [{"K": key, "C": channel}.get(word, word) for word in line.split()]
        try:
            told = asks.talk("ACL", "DRYRUN", asks.user, *words)
        except ServerError as error:
            if str(error).startswith("Redis at "):
                raise
            return  # neither may it be asked, nor does an older server know
        if told != "OK":
            denied.append((line.replace(" K", "").replace(" C", ""), str(told)))
    if denied:
        commands = ", ".join(" ".join(line.split()[:2]) if "__" in line else line.split()[0] for line, _ in denied)
        what = f"user {asks.user} may not run {commands} on stillwarm's keys and channels: {denied[0][1]}"
        yield Finding("wrong", what, asks.grant)


def _way(asks: Asks) -> Iterator[Finding]:
    took = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        asks.talk("PING")
        took.append(1000 * (time.perf_counter() - began))
    median = sorted(took)[_PINGS // 2]
    if median > _SLOW:
        what = f"a round trip takes {median:.1f} ms (median of {_PINGS}), and every miss in memory makes one"
        yield Finding(
            "note", what, "a server nearer by, a larger max_bytes, or see its SLOWLOG and redis-cli --latency"
        )
    began_at = time.time()
    seconds, microseconds = asks.talk("TIME")
    skew = int(seconds) + int(microseconds) / 1e6 - (began_at + time.time()) / 2
    if abs(skew) > _SKEW:
        what = f"the server's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
        advice = "NTP on both; entries keep their times by the server's clock alone, but Age of cached responses is off"
        yield Finding("note", what, advice)


def _keys(asks: Asks) -> Iterator[Finding]:
    census = Census()
    census.count(asks)
    return census_found(asks.place, census, bool(asks.talk("EXISTS", asks.place.key("m"))))


def contents(place: RedisPlace) -> Iterator[Finding]:
    """What the entries tell."""
    try:
        figures = stats(place)
    except StillwarmError as error:
        yield Finding("wrong", f"the entries cannot be read: {error}", "see the findings above")
        return
    if figures.entries and figures.expired / figures.entries > _EXPIRED:
        share = f"{100 * figures.expired / figures.entries:.0f} % of the entries are invalid by a mark"
        yield Finding("note", share, "stillwarm purge; if it comes back, the hourly purge does not run")
    for name, one in figures.types.items():
        if 100 <= one.entries <= 10_000 and one.average_hits < _REUSED:
            what = f"type {name}: an entry is reused {one.average_hits:.1f} times on average"
            yield Finding("note", what, "a longer ttl, fewer arguments in the key, or no cache at all")


__all__ = ["Asks", "contents", "examine", "looked", "reached", "refused"]
