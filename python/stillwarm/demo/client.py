"""The client that drives a demo, over real HTTP: one request at a time, or many at once.

Thread rule: one thread per Client.
Refuses to know: what is behind the URL. It measures from the first byte sent to the last byte read.
"""

from __future__ import annotations

import json
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back. `label`: the X-Cache header, `age`: the Age header, `at`: time.monotonic() of the last byte."""

    status: int
    body: Any
    label: str
    age: int
    seconds: float
    at: float


class Client:
    """Talks to one server, over one connection that stays open.

    Args:
        host: what its Host header says; by default that of the url. Several processes are one site by one name.
    """

    def __init__(self, url: str, timeout: float = 60.0, host: str = "") -> None:
        parts = urlsplit(url)
        self._named = {"Host": host} if host else {}
        self._host, self._port, self._timeout = parts.hostname or "", parts.port or 80, timeout
        self._connection = self._connect()

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(self._host, self._port, timeout=self._timeout)

    def get(self, path: str, bearer: str = "") -> Answer:
        return self.ask("GET", path, None, bearer)

    def post(self, path: str, document: Any, bearer: str = "") -> Answer:
        return self.ask("POST", path, json.dumps(document), bearer)

    def ask(self, method: str, path: str, body: str | None = None, bearer: str = "") -> Answer:
        """One request; `bearer` goes into its Authorization header."""
        headers = dict(self._named) if body is None else {"Content-Type": "application/json", **self._named}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        start = time.monotonic()
        self._connection.request(method, path, body, headers)
        return _read(self._connection.getresponse(), start)

    def get_at_once(
        self,
        path: str,
        count: int,
        *,
        first: str,
        arrived: Callable[[int], object] = lambda _: None,
        document: Any = None,
    ) -> list[Answer]:
        """`count` requests, each on its own connection, all sent before the first answer is read. In order of arrival.

        The connections are open and have answered a request for `first` by then, as those of clients that stay.
        `arrived` is called with the number of answers so far. With a `document` they are POST requests.
        """
        method, body = ("GET", None) if document is None else ("POST", json.dumps(document))
        headers = {} if document is None else {"Content-Type": "application/json"}
        connections = [self._connect() for _ in range(count)]
        answers: list[Answer] = []
        try:
            for connection in connections:
                connection.request("GET", first)
                connection.getresponse().read()
            with selectors.DefaultSelector() as readable:
                for connection in connections:
                    start = time.monotonic()
                    connection.request(method, path, body, headers)
                    readable.register(connection.sock, selectors.EVENT_READ, (connection, start))
                while len(answers) < count:
                    ready = readable.select(self._timeout)
                    if not ready:
                        raise TimeoutError(
                            f"{count - len(answers)} of {count} answers did not come in {self._timeout:g} s"
                        )
                    for key, _ in ready:
                        readable.unregister(key.fileobj)
                        connection, start = key.data
                        answers.append(_read(connection.getresponse(), start))
                    arrived(len(answers))
        finally:
            for connection in connections:
                connection.close()
        return answers

    def close(self) -> None:
        self._connection.close()


def _read(response: HTTPResponse, start: float) -> Answer:
    body = response.read()
    at = time.monotonic()
    document = json.loads(body) if response.headers.get_content_type().endswith("json") else body.decode()
    label, age = response.headers.get("X-Cache", ""), int(response.headers.get("Age", "0"))
    return Answer(response.status, document, label, age, at - start, at)


__all__ = ["Answer", "Client"]
