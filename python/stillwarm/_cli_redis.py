"""What the commands of `stillwarm` do on Redis where it is not the same call as on PostgreSQL.

Thread rule: the main thread only.
Refuses to know: terminals (_cli_output).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillwarm._admin import Figures, Hot
from stillwarm._admin_cluster import BUCKETS, ClusterPlace, bucket_key
from stillwarm._admin_redis import RedisPlace, purge, stats, top
from stillwarm._apps import App
from stillwarm._ask import ServerError
from stillwarm._ask_cluster import ClusterConversation
from stillwarm._ask_redis import RedisConversation
from stillwarm._connect import connect_redis, without_passwords
from stillwarm._sql_types import identifier
from stillwarm._tier_invalidation import names_of
from stillwarm._tier_values import storable
from stillwarm._url import redis_address
from stillwarm.errors import ConfigError, TierUnavailable

if TYPE_CHECKING:
    from stillwarm._doctor import Finding
    from stillwarm._purge import Progress

_INTENTS = ("key", "type", "tag", "pattern", "all")


class RedisSite:
    """A namespace in Redis. It is connected when first asked, and by nobody who only asks what is wrong.

    Raises:
        ConfigError: the namespace or the URL is not accepted.
    """

    SIZE_OF = "entries as stored"

    def __init__(self, url: str, namespace: str, app: App) -> None:
        identifier(namespace, "namespace")
        redis_address(url)
        self.url = url
        self._query: connect_redis | None = None
        types = tuple(getattr(app.cache, "_type_ids", ()))
        place = ClusterPlace if redis_address(url).cluster else RedisPlace
        self.place = place(lambda text, words: self.query(text, words), namespace, types)

    @property
    def query(self) -> connect_redis:
        """Of the tier. The first connection makes the namespace's marks where there are none."""
        if self._query is None:
            self._query = connect_redis(self.url, self.place.namespace)
        return self._query

    def is_there(self) -> bool:
        """Whether the namespace is; it is not made for the question.

        Raises:
            TierUnavailable: with what the server or the connection said.
        """
        address = redis_address(self.url)
        try:
            if address.cluster:
                with ClusterConversation(address.places, lambda talk: sign_in(talk, self.url), address.tls) as cluster:
                    return any(has_bucket(cluster, self.place.namespace, bucket) for bucket in range(BUCKETS))
            talk = RedisConversation(address.host, address.port, tls=address.tls)
            try:
                sign_in(talk, self.url)
                return bool(talk("EXISTS", self.place.key("m")))
            finally:
                talk.close()
        except ServerError as error:
            raise TierUnavailable(without_passwords(str(error), self.url)) from None

    def figures(self) -> Figures:
        """As `stats` of _admin_redis; of a namespace that is not there none."""
        return stats(self.place) if self.is_there() else Figures({}, 0)

    def hot(self, n: int) -> list[Hot]:
        """As `top` of _admin_redis."""
        return top(self.place, n) if self.is_there() else []

    def purge(self, progress: Progress, batch: int, caps: Mapping[str, Any]) -> dict[str, int]:
        """As `purge` of _admin_redis.

        Raises:
            ConfigError: there are caps.
        """
        if caps:
            raise _only_postgres()
        return purge(self.place, progress, batch)

    def pg_cron_sql(self, batch: int) -> str:
        raise _only_postgres()

    def examine(self, app: App) -> list[Finding]:
        """As _doctor_redis."""
        if redis_address(self.url).cluster:
            from stillwarm import _doctor_cluster

            return _doctor_cluster.examine(self.place, self.url, app.cache)
        from stillwarm._doctor_redis import examine

        return examine(self.place, self.url, app.cache)

    def invalidate(self, intent: Mapping[str, Any], params: Mapping[str, str], stale: bool) -> int | None:
        """As `Cache.invalidate`, in Redis and told to every process; the count for key and pattern.

        Raises:
            ConfigError: not exactly one intent, or one that needs PostgreSQL.
        """
        if "where" in intent:
            raise ConfigError("where= needs PostgreSQL: Redis has no columns; accepted: key, type, tag, pattern, all")
        if len(intent) != 1:
            raise ConfigError(
                f"invalidate got {', '.join(intent) or 'nothing'}: accepted: one of {', '.join(_INTENTS)}"
            )
        ((kind, value),) = intent.items()
        names = names_of(kind, "" if kind == "all" else storable(value) if kind == "key" else value)
        count = sum(self.query.invalidate(name, stale) for name in names)
        return count if kind in ("key", "pattern") else None

    def close(self) -> None:
        if self._query is not None:
            self._query.close()


def _only_postgres() -> ConfigError:
    return ConfigError(
        "--pg-cron, --max-rows, --max-bytes need PostgreSQL; what Redis holds at most is its maxmemory, with "
        "maxmemory-policy allkeys-lru"
    )


def has_bucket(cluster: ClusterConversation, namespace: str, bucket: int) -> bool:
    """Whether the bucket's marks are there.

    Raises:
        ServerError: its master does not answer.
    """
    key = bucket_key(namespace, bucket, "m")
    return bool(cluster.of(key)("EXISTS", key))


def sign_in(talk: RedisConversation, url: str) -> None:
    """AUTH and SELECT, as the URL says.

    Raises:
        ServerError: the server's word against it.
    """
    address = redis_address(url)
    if address.password:
        talk("AUTH", *filter(None, (address.user, address.password)))
    if address.database:
        talk("SELECT", address.database)


__all__ = ["RedisSite", "has_bucket", "sign_in"]
