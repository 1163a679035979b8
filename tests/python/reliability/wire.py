"""A client of HTTP/1.1 for many requests at once from one loop, on connections that stay open.

Thread rule: one event loop.
Refuses to know: what is asked. A connection that ends is an OSError.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit


class Wire:
    """One connection, made with the first request and again after it broke."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "", parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Status and body: what its JSON says, or its text.

        Raises:
            OSError: nobody is there, or the connection ended before the answer was whole.
        """
        await self.open()
        assert self._streams is not None
        reader, writer = self._streams
        body = b"" if document is None else json.dumps(document).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._place[0]}\r\nContent-Length: {len(body)}\r\n"
        try:
            writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            await writer.drain()
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            length = next(int(line[15:]) for line in lines if line.lower().startswith("content-length:"))
            body = await reader.readexactly(length)
            is_json = any("json" in line for line in lines if line.lower().startswith("content-type:"))
            return int(first.split(" ")[1]), json.loads(body) if is_json else body.decode()
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError("the connection ended before the answer") from error

    async def open(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


__all__ = ["Wire"]
