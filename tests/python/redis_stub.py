"""A server that speaks RESP and says what a test lets it say.

Thread rule: each connection has a thread of its own; `asked` grows from any of them.
Refuses to know: what it is asked.
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


def encoded(answer: Any) -> bytes:
    if answer is None:
        return b"*-1\r\n"
    if isinstance(answer, Exception):
        return f"-{answer}\r\n".encode()
    if isinstance(answer, int):
        return f":{answer}\r\n".encode()
    if isinstance(answer, list):
        return f"*{len(answer)}\r\n".encode() + b"".join(map(encoded, answer))
    return f"${len(answer.encode())}\r\n{answer}\r\n".encode()


class RedisStub:
    """Answers each command with `answer(words)`; an Exception is an error, "silence" no answer at all."""

    def __init__(self, answer: Callable[[list[str]], Any]) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []
        stub = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    self.serve()

            def serve(self) -> None:
                while head := self.rfile.readline():
                    words = []
                    for _ in range(int(head[1:])):
                        size = int(self.rfile.readline()[1:])
                        words.append(self.rfile.read(size + 2)[:-2].decode())
                    stub.asked.append(words)
                    told = stub.answer(words)
                    if told != "silence":
                        self.wfile.write(encoded(told))

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> RedisStub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
