"""What is transient: look-alikes of each library's exceptions, with the same module, name, bases and attributes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import ssl
import types
from typing import Any

import pytest

from stillwarm import Retry
from stillwarm._failures import classify, retry_after, transient
from stillwarm.errors import CircuitOpen, ConfigError, LoadTimeout, NotFound, TierRejected, TierUnavailable


def alike(qualified: str, *bases: type, **attributes: Any) -> type[Any]:
    """A class that calls itself `module.Name`."""
    module, _, name = qualified.rpartition(".")
    return type(name, bases or (Exception,), {"__module__": module, **attributes})


def response(status: int = 503, **headers: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


# psycopg: the class carries the SQLSTATE; psycopg2: the object; asyncpg: the class, under other names
PsycopgError = alike("psycopg.Error", sqlstate=None)
PsycopgOperational = alike("psycopg.OperationalError", alike("psycopg.DatabaseError", PsycopgError))
Psycopg2Operational = alike(
    "psycopg2.OperationalError", alike("psycopg2.DatabaseError", alike("psycopg2.Error")), pgcode=None
)
AsyncpgError = alike("asyncpg.exceptions._base.PostgresError", sqlstate=None)
SqlalchemyError = alike("sqlalchemy.exc.SQLAlchemyError")
DbapiError = alike("sqlalchemy.exc.DBAPIError", SqlalchemyError, orig=None, connection_invalidated=False)
RequestException = alike("requests.exceptions.RequestException", OSError, response=None)
RequestsConnectionError = alike("requests.exceptions.ConnectionError", RequestException)
RequestsHttpError = alike("requests.exceptions.HTTPError", RequestException)
HttpxError = alike("httpx.HTTPError")
HttpxTransport = alike("httpx.TransportError", alike("httpx.RequestError", HttpxError))
HttpxStatus = alike("httpx.HTTPStatusError", HttpxError)
Urllib3Error = alike("urllib3.exceptions.HTTPError")
AiohttpError = alike("aiohttp.client_exceptions.ClientError")
AiohttpResponse = alike("aiohttp.client_exceptions.ClientResponseError", AiohttpError, status=0, headers=None)
RedisError = alike("redis.exceptions.RedisError")
RedisConnection = alike("redis.exceptions.ConnectionError", RedisError)


def having(exc: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(exc, name, value)
    return exc


TRANSIENT = [
    ConnectionResetError(),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    BrokenPipeError(),
    TimeoutError(),
    asyncio.TimeoutError(),
    concurrent.futures.TimeoutError(),
    OSError(errno.EHOSTUNREACH, "no route"),
    OSError(errno.EMFILE, "too many open files"),
    socket.gaierror(socket.EAI_AGAIN, "try again"),
    ssl.SSLEOFError(),
    asyncio.IncompleteReadError(b"", 5),
    PsycopgOperational("server closed the connection unexpectedly"),
    alike("psycopg.errors.SerializationFailure", PsycopgOperational, sqlstate="40001")(),
    alike("psycopg.errors.AdminShutdown", PsycopgOperational, sqlstate="57P01")(),
    having(alike("psycopg2.errors.DeadlockDetected", Psycopg2Operational)(), pgcode="40P01"),
    Psycopg2Operational("could not connect"),
    alike("asyncpg.exceptions.TooManyConnectionsError", AsyncpgError, sqlstate="53300")(),
    alike("asyncpg.exceptions.ConnectionDoesNotExistError", AsyncpgError, sqlstate="08003")(),
    alike("sqlalchemy.exc.TimeoutError", SqlalchemyError)(),
    having(DbapiError(), orig=PsycopgOperational()),
    having(DbapiError(), orig=alike("psycopg.errors.DeadlockDetected", PsycopgOperational, sqlstate="40P01")()),
    having(DbapiError(), orig=alike("asyncpg.exceptions._base.InterfaceError")(), connection_invalidated=True),
    RedisConnection(),
    alike("redis.exceptions.BusyLoadingError", RedisConnection)(),
    RequestsConnectionError(),
    alike("requests.exceptions.ReadTimeout", alike("requests.exceptions.Timeout", RequestException))(),
    having(RequestsHttpError(), response=response(503)),
    having(RequestsHttpError(), response=response(429)),
    alike("httpx.ConnectTimeout", alike("httpx.TimeoutException", HttpxTransport))(),
    alike("httpx.ReadError", alike("httpx.NetworkError", HttpxTransport))(),
    alike("httpx.RemoteProtocolError", alike("httpx.ProtocolError", HttpxTransport))(),
    having(HttpxStatus(), response=response(502)),
    alike("urllib3.exceptions.ReadTimeoutError", alike("urllib3.exceptions.TimeoutError", Urllib3Error))(),
    having(alike("urllib3.exceptions.MaxRetryError", Urllib3Error)(), reason=ConnectionRefusedError()),
    having(alike("urllib.error.URLError", OSError)(), reason=ConnectionRefusedError()),
    alike("aiohttp.client_exceptions.ClientPayloadError", AiohttpError)(),
    having(AiohttpResponse(), status=504),
    having(alike("shop.ApiError")(), status_code=503),
    CircuitOpen(),
    LoadTimeout(),
    TierUnavailable(),
]

FATAL = [
    ValueError(),
    KeyError("x"),
    LookupError(),
    ConfigError(),
    TierRejected(),
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(),
    IsADirectoryError(),
    OSError("no number"),
    OSError(errno.ENOSPC, "no space"),
    socket.gaierror(socket.EAI_NONAME, "unknown name"),
    ssl.SSLCertVerificationError(),
    PsycopgError(),
    alike("psycopg.errors.UniqueViolation", PsycopgOperational.__mro__[1], sqlstate="23505")(),
    alike("psycopg.errors.InvalidPassword", PsycopgOperational, sqlstate="28P01")(),
    having(alike("psycopg2.errors.UndefinedTable", Psycopg2Operational.__mro__[1])(), pgcode="42P01"),
    having(DbapiError(), orig=alike("psycopg.errors.SyntaxError", PsycopgOperational, sqlstate="42601")()),
    DbapiError(),
    alike("sqlalchemy.exc.NoResultFound", SqlalchemyError)(),
    alike("redis.exceptions.AuthenticationError", RedisConnection)(),
    alike("redis.exceptions.ResponseError", RedisError)(),
    alike("requests.exceptions.SSLError", RequestsConnectionError)(),
    alike("requests.exceptions.InvalidURL", RequestException, ValueError)(),
    having(RequestsHttpError(), response=response(404)),
    having(HttpxStatus(), response=response(501)),
    alike("httpx.UnsupportedProtocol", HttpxTransport)(),
    having(alike("urllib3.exceptions.MaxRetryError", Urllib3Error)(), reason=ssl.SSLCertVerificationError()),
    having(AiohttpResponse(), status=403),
    having(alike("shop.Failure")(), status="503", status_code=True, errno=errno.ECONNRESET),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    KeyboardInterrupt(),
    SystemExit(),
]


def name_of(exc: BaseException) -> str:
    return f"{type(exc).__module__}.{type(exc).__qualname__}"


@pytest.mark.parametrize("exc", TRANSIENT, ids=name_of)
def test_outages_are_transient(exc: BaseException) -> None:
    assert classify(exc) == "transient"
    assert transient(exc) is True


@pytest.mark.parametrize("exc", FATAL, ids=name_of)
def test_mistakes_are_fatal(exc: BaseException) -> None:
    assert classify(exc) == "fatal"
    assert transient(exc) is False


def test_not_found_and_its_children_are_answers() -> None:
    class NoSuchProduct(NotFound):
        pass

    assert classify(NotFound()) == "not_found"
    assert classify(NoSuchProduct()) == "not_found"
    assert not transient(NotFound())


def test_an_adapters_translation_is_looked_through() -> None:
    adapted = alike("sqlalchemy.dialects.postgresql.asyncpg.OperationalError")()
    adapted.__cause__ = alike("asyncpg.exceptions.CannotConnectNowError", AsyncpgError, sqlstate="57P03")()
    assert classify(having(DbapiError(), orig=adapted)) == "transient"
    adapted.__cause__ = alike("asyncpg.exceptions._base.InterfaceError")()
    assert classify(having(DbapiError(), orig=adapted)) == "fatal"


def test_a_wrapper_that_wraps_itself_ends() -> None:
    wrapper = DbapiError()
    wrapper.orig = wrapper
    assert classify(wrapper) == "fatal"


def test_a_group_is_what_all_its_members_are() -> None:
    group = alike("builtins.ExceptionGroup", alike("builtins.BaseExceptionGroup"))
    assert classify(having(group(), exceptions=(TimeoutError(), ConnectionError()))) == "transient"
    assert classify(having(group(), exceptions=(TimeoutError(), ValueError()))) == "fatal"
    assert classify(having(group(), exceptions=(NotFound(),))) == "not_found"
    assert classify(having(group(), exceptions=())) == "fatal"


def test_properties_that_raise_are_as_if_absent() -> None:
    class Hostile(TimeoutError):
        @property
        def response(self) -> None:
            raise RuntimeError("the .request property has not been set")

        sqlstate = pgcode = status = headers = connection_invalidated = response

    assert classify(Hostile()) == "transient"
    assert retry_after(Hostile()) is None


# ------------------------------------------------------------------------------------------------------ Retry-After


def hinted(**headers: str) -> Any:
    return having(RequestsHttpError(), response=response(503, **headers))


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("1.5", 1.5), ("9" * 400, 3_153_600_000.0)]
)
def test_retry_after_in_seconds(text: str, seconds: float) -> None:
    assert retry_after(hinted(Retry_After=text)) == seconds


def test_retry_after_as_a_date_is_measured_from_the_responses_own_date() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retry_after(hinted(Retry_After="Wed, 21 Oct 2015 07:30:00 GMT", Date=date)) == 120.0
    assert retry_after(hinted(Retry_After="Wed, 21 Oct 2015 07:27:00 GMT", Date=date)) == 0.0
    assert retry_after(hinted(Retry_After="Wed, 21 Oct 2015 07:30:00 -0000", Date=date)) == 120.0


def test_retry_after_as_a_date_without_date_is_measured_from_now() -> None:
    assert retry_after(hinted(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")) == 0.0
    future = retry_after(hinted(Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"))
    assert future is not None
    assert future == 100 * 365 * 86_400, "no longer than the core can count"


@pytest.mark.parametrize("text", ["", "soon", "-5", "+5", "1e3", "٣", "nan", "inf", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_is_neither_is_ignored(text: str) -> None:
    assert retry_after(hinted(Retry_After=text)) is None


def test_retry_after_is_read_wherever_clients_put_headers() -> None:
    assert retry_after(having(AiohttpResponse(), headers={"Retry-After": "3"})) == 3.0
    assert retry_after(having(alike("urllib.error.HTTPError", OSError)(), headers={"retry-after": "4"})) == 4.0
    assert retry_after(having(HttpxStatus(), response=response(429, retry_after="5"))) == 5.0
    assert retry_after(having(Exception(), response={"Retry-After": "6"})) is None
    assert retry_after(having(Exception(), headers=[("Retry-After", "6")])) is None
    assert retry_after(having(Exception(), headers={"Retry-After": 6})) is None
    assert retry_after(ValueError()) is None


@pytest.mark.parametrize("text", ["Fri, 31 Dec 9999 23:59:59 GMT", "9" * 400])
def test_an_absurd_retry_after_is_a_long_one(text: str) -> None:
    error = ConnectionError()
    error.headers = {"Retry-After": text}  # type: ignore[attr-defined]
    asked = retry_after(error)
    assert asked is not None
    assert 0 < asked * 1e9 < 2**63
    assert Retry(on=ConnectionError).start().failed(error) is None


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e12, -5.0])
def test_an_absurd_circuit_is_no_other_error(seconds: float) -> None:
    assert Retry(on=CircuitOpen, retries=0).start().failed(CircuitOpen("x", seconds)) is None
