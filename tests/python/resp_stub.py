"""A Redis between a client and a real one, which answers some commands itself: with errors that are hard to provoke.

`stub.says(b"-LOADING ...\\r\\n")` for everything, or for the commands whose first word is in `commands`.

Thread rule: one thread accepts, two serve each connection; `says` may come from any thread.
Refuses to know: caches.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Any


class RespStub:
    """Stands at `port` before the server at `target_port`."""

    def __init__(self, target_port: int) -> None:
        self.seen: Counter[bytes] = Counter()  # commands, those that were passed on as well
        self.said = 0
        self._target = target_port
        self._answer = b""
        self._commands: frozenset[bytes] | None = frozenset()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def says(self, answer: bytes, *commands: bytes) -> None:
        """From now on; b"": everything is the server's again."""
        self._answer = answer
        self._commands = frozenset(commands) if commands or not answer else None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client.makefile("rb") as asked, server.makefile("rb") as told:
            while True:
                raw, words = _read(asked)
                word = bytes(words[0]).upper()
                self.seen[word] += 1
                if self._answer and (self._commands is None or word in self._commands):
                    self.said += 1
                    client.sendall(self._answer)
                    continue
                server.sendall(raw)
                if word == b"SUBSCRIBE":  # from here on the server speaks when it likes
                    downwards = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                    self._threads.append(downwards)
                    downwards.start()
                    _pass_on(client, server)
                    break
                client.sendall(_read(told)[0])
        for side in (client, server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for side in self._open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for side in self._open:
            side.close()

    def __enter__(self) -> RespStub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _read(source: Any) -> tuple[bytes, Any]:
    """One value: its bytes, and what it says where it is an array or a bulk string."""
    line = source.readline()
    if not line.endswith(b"\r\n"):
        raise ValueError("the connection was closed")
    size = int(line[1:]) if line[:1] in b"$*" else 0
    if line[:1] == b"$" and size >= 0:
        body = source.read(size + 2)
        return line + body, body[:-2]
    if line[:1] == b"*" and size >= 0:
        parts = [_read(source) for _ in range(size)]
        return line + b"".join(raw for raw, _ in parts), [value for _, value in parts]
    return line, None
