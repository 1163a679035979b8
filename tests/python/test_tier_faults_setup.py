"""What the PostgreSQL tier needs is not there: its tables, its data, the password, the rights.

Thread rule: each test has a server or a database of its own.
Refuses to know: faults that pass by themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from chaos import ChaosProxy
from outages import SECRET, Raw, answers, eventually, forget, is_of, patient, shared, silent_about_secrets, told_once
from stillwarm import Cache, ConfigError, State
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers
Make = Callable[..., ChaosProxy]


@pytest.fixture
def url(warm_postgres: PostgresServer) -> str:
    return warm_postgres.new_database()


def goes_on(one: Any, keys: range) -> None:
    for n in keys:
        assert is_of(one.get(f"k{n}"), f"k{n}")


# ------------------------------------------------------------------------------------------------------------- 42P01


def test_tier_faults_42p01_tables_dropped_under_load_are_made_once(url: str, warm_postgres: PostgresServer) -> None:
    with Raw(url) as raw, shared(url) as one:
        one.get("k")
        one.written()
        ends, wrong = threading.Event(), []

        def use(thread: int) -> None:
            n = 0
            while not ends.is_set():
                n += 1
                key = f"{thread}-{n % 50}"
                value = one.fresh(key)
                if not is_of(value, key):
                    wrong.append(value)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        raw("CREATE TABLE made (at timestamptz)")
        raw(
            "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN IF EXISTS (SELECT FROM"
            " pg_event_trigger_ddl_commands() WHERE object_identity = 'stillwarm.entries'"
            " AND command_tag = 'CREATE TABLE')"
            " THEN INSERT INTO public.made VALUES (now()); END IF; END$$"
        )
        raw("CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()")
        raw("DROP SCHEMA stillwarm CASCADE")
        eventually(lambda: raw("SELECT to_regclass('stillwarm.entries') IS NOT NULL") == [(True,)])
        ends.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        eventually(lambda: answers(one))
        assert raw("SELECT count(*) FROM made")[0][0] == 1, "made once"


def test_tier_faults_the_data_is_gone(private_postgres: PostgresServer) -> None:
    """A restart with an empty disk: what memory has of the old server is confirmed by nobody."""
    url = private_postgres.new_database()
    name = url.rpartition("/")[2]
    with shared(url) as one:
        first = one.get("k")
        one.cache.set("d", 1)
        one.written()
        private_postgres.stop("immediate")
        private_postgres.start()
        private_postgres.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        assert is_of(one.get("k"), "k")
        private_postgres.sql(f'CREATE DATABASE "{name}"')
        eventually(lambda: one.cache.confirm())
        assert is_of(one.get("k"), "k")
        assert one.cache.get("d") is None, "the tier does not know it, so nobody does"
        one.written()
        assert is_of(one.fresh("k"), "k")
        assert is_of(first, "k")
        with shared(url) as other:
            assert is_of(other.get("k"), "k")


# ------------------------------------------------------------------------------------------- password, rights, schema


@pytest.fixture
def guarded(private_postgres: PostgresServer) -> PostgresServer:
    """A server that wants passwords of everybody but postgres."""
    private_postgres.sql(f"CREATE ROLE app LOGIN PASSWORD '{SECRET}'")
    private_postgres.sql("CREATE ROLE reader LOGIN")
    hba = private_postgres.socket / "data" / "pg_hba.conf"
    hba.write_text(
        "host all postgres,reader 127.0.0.1/32 trust\nlocal all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    private_postgres.sql("SELECT pg_reload_conf()")
    eventually(lambda: _refuses(private_postgres))
    return private_postgres


def _refuses(server: PostgresServer) -> bool:
    try:
        psycopg.connect(f"postgresql://app:wrong@127.0.0.1:{server.port}/postgres").close()
    except psycopg.OperationalError:
        return True
    return False


def test_tier_faults_a_wrong_password(guarded: PostgresServer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "stillwarm")
    url = f"postgresql://app:{SECRET}-wrong@127.0.0.1:{guarded.port}/postgres"
    before = guarded.log.count("password authentication failed")
    with shared(url) as one:
        goes_on(one, range(12))
        assert one.cache.state is State.DOWN
        for _ in range(2):
            with pytest.raises(TierError, match="password authentication failed") as caught:
                one.cache.check()
            silent_about_secrets(caplog, caught.value, repr(caught.value))
        assert told_once(caplog, "password authentication failed")
        with pytest.raises(TierError) as refused:
            one.cache.query("SELECT 1")
        silent_about_secrets(
            caplog,
            refused.value,
            one.cache,
            one.cache.stats(),
            one.cache._tier.figures(),
            one.health,
            vars(one.cache._tier).get("core"),
        )
        assert guarded.log.count("password authentication failed") - before < 40, "no storm"
        guarded.sql(f"ALTER ROLE app PASSWORD '{SECRET}-wrong'")
        guarded.sql("GRANT CREATE ON DATABASE postgres TO app")
        eventually(lambda: one.cache.confirm())
        one.cache.check()


def test_tier_faults_the_right_password_is_told_nowhere(guarded: PostgresServer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "stillwarm")
    guarded.sql("GRANT CREATE ON DATABASE postgres TO app")
    url = f"postgresql://app:{SECRET}@127.0.0.1:{guarded.port}/postgres"
    with shared(url) as one:
        goes_on(one, range(3))
        one.cache.check()
        eventually(lambda: one.cache.state is State.HEALTHY)
        guarded.kill()
        goes_on(one, range(3, 8))
        with pytest.raises(TierError) as caught:
            one.cache.check()
        silent_about_secrets(caplog, caught.value, one.cache, one.cache.stats(), one.cache._tier.figures())


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@[::1/x",
        f"postgresql://u:{SECRET}@host:port/x",
        f"postgresql://u:{SECRET}@host/x?nonsense=1",
        f"postgresql://host/x?password={SECRET}&nonsense=1",
        f"mysql://u:{SECRET}@host/x",
        f"postgresql://u:{SECRET}@host/x?flag",
    ],
)
def test_tier_faults_a_wrong_url_is_refused_without_its_password(url: str, caplog: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Cache(url)
    silent_about_secrets(caplog, caught.value, repr(caught.value), caught.value.__cause__, caught.value.__context__)


def test_tier_faults_no_right_to_create_the_schema(guarded: PostgresServer, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    guarded.sql("REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
    with shared(f"postgresql://reader@127.0.0.1:{guarded.port}/postgres") as one:
        goes_on(one, range(12))
        eventually(lambda: one.cache.state is State.DOWN)
        with pytest.raises(TierError, match="permission denied"):
            one.cache.check()
        assert told_once(caplog, "permission denied")
        guarded.sql("GRANT CREATE ON DATABASE postgres TO reader")
        one.cache.check()  # makes them
        eventually(lambda: (one.cache.set("a", 1), one.fresh("a"), one.cache.state)[2] is not State.DOWN)


def test_tier_faults_no_rights_on_the_tables(guarded: PostgresServer, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    with patient(guarded.url) as owner:
        owner.get("k")
        owner.written()
        with patient(f"postgresql://reader@127.0.0.1:{guarded.port}/postgres") as one:
            goes_on(one, range(12))
            assert one.cache.state is State.DOWN
            with pytest.raises(TierError, match=r"permission denied|may not use"):
                one.cache.check()
            assert told_once(caplog, "permission denied for schema")
            guarded.sql("GRANT USAGE ON SCHEMA stillwarm TO reader")
            guarded.sql("GRANT SELECT ON ALL TABLES IN SCHEMA stillwarm TO reader")
            eventually(lambda: one.cache.confirm())
            assert one.fresh("k") == owner.get("k"), "read from the tier"
            goes_on(one, range(20, 30))
            assert one.cache.set("d", 1)
            eventually(lambda: one.cache.state is State.DOWN, what="it may not write")
            with pytest.raises(TierError, match=r"permission denied|may not use"):
                one.cache.check()
            guarded.sql("GRANT ALL ON ALL TABLES IN SCHEMA stillwarm TO reader")
            one.cache.check()

            def works() -> bool:
                one.cache.set("d", 2)
                one.get("w")
                one.fresh("w")
                return one.cache.state is not State.DOWN

            eventually(works)
            forget(owner.cache)
            eventually(lambda: owner.cache.get("d") == 2)
