"""Commands to a Redis server and their answers, for tests and tools: a connection of its own, standard library alone.

Thread rule: a call of `ask_redis` has its own connection, any thread; a RedisConversation belongs to one thread.
Refuses to know: which server it is, and what is asked. The tier's own connections are hiredis's (cpp/core/remote).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from stillwarm._ask import ServerError
from stillwarm._redis_tls import RedisTls

__all__ = ["RedisConversation", "ask_redis"]


def ask_redis(
    address: tuple[str, int],
    commands: Sequence[Sequence[object]],
    timeout: float = 5.0,
    password: str | None = None,
    tls: RedisTls | None = None,
) -> list[Any]:
    """Sends the commands on one connection; their answers: str, int, None, or lists of these. Bytes are latin-1.

    Raises:
        ServerError: the server answered the last one with an error, was not there, or took longer than `timeout` s.
    """
    if password is not None:
        commands = [("AUTH", password), *commands]
    try:
        with _connected(address[0], address[1], timeout, tls) as connection:
            connection.sendall(b"".join(map(_encoded, commands)))
            with connection.makefile("rb") as answers:
                told = [_decoded(answers) for _ in commands]
    except (OSError, ValueError) as error:
        raise ServerError(f"Redis at {address[0]}:{address[1]}: {error}") from None
    if isinstance(told[-1], ServerError):
        raise told[-1]
    return told[1:] if password is not None else told


class RedisConversation:
    """One connection: `talk("GET", "k")`. A signed-in one, and of a database, is the caller's to make.

    Raises:
        ServerError: it was not there. When called: the server answered with an error, or took longer than `timeout` s.
    """

    def __init__(self, host: str, port: int, timeout: float = 5.0, tls: RedisTls | None = None) -> None:
        self._where = host if host.startswith("/") else f"{host}:{port}"
        try:
            self._connection = _connected(host, port, timeout, tls)
        except OSError as error:
            raise ServerError(f"Redis at {self._where}: {error}") from None
        self._answers = self._connection.makefile("rb")

    def __call__(self, *words: object) -> Any:
        try:
            self._connection.sendall(_encoded(words))
            answer = _decoded(self._answers)
        except (OSError, ValueError) as error:
            raise ServerError(f"Redis at {self._where}: {error}") from None
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def close(self) -> None:
        self._answers.close()
        self._connection.close()


def _connected(host: str, port: int, timeout: float, tls: RedisTls | None) -> socket.socket:
    if host.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(host)
        return connection
    connection = socket.create_connection((host, port), timeout)
    if tls is None:
        return connection
    try:
        return tls.context().wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def _encoded(words: Sequence[object]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _decoded(answers: Any) -> Any:
    line = answers.readline()
    if not line.endswith(b"\r\n"):
        raise ValueError("the connection was closed")
    kind, text = line[:1], line[1:-2].decode("latin-1")
    if kind == b"+":
        return text
    if kind == b"-":
        return ServerError(text)
    if kind == b":":
        return int(text)
    if kind == b"$":
        size = int(text)
        return None if size < 0 else answers.read(size + 2)[:-2].decode("latin-1")
    if kind == b"*":
        count = int(text)
        return None if count < 0 else [_decoded(answers) for _ in range(count)]
    raise ValueError(f"not RESP: {line!r}")
