"""A TCP proxy that does to a client what networks and dying servers do: cuts, silence, resets, garbage, single bytes.

`with ChaosProxy(server.port) as proxy:` and a client connects to `proxy.port`. What it does is one `Behaviour`, which
can be changed at any time: `proxy.behave(delay=0.1)` for connections to come and those that are there, `behave(...)` of
one of `proxy.connections` for that one alone. Offsets count the server's bytes since the behaviour was set, so that
"cut after 10" means ten bytes from now on.

Thread rule: one thread accepts, two serve each connection; `behave` and `close` may come from any thread.
Refuses to know: protocols. What is looked for in the server's bytes is a plain text, such as `COMMITTED`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

End = Literal["fin", "reset", "silence"]

# The server's replies to COMMIT and to BEGIN: a CommandComplete with that tag.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
BEGUN = b"C\x00\x00\x00\x0aBEGIN\x00"


@dataclass(frozen=True)
class Behaviour:
    """What happens to the server's bytes; without arguments they pass.

    Attributes:
        cut_after: after so many of them the connection ends as `end` says.
        cut_before: a text; where the server's bytes have it, the connection ends before its first byte. An end of the
            server's bytes that may be its beginning is kept back until more of them come.
        cut_request: a text; the client's bytes that have it never reach the server, and the connection ends.
        request_kept: of those bytes, what stands before the text and so many from its first one on arrive all the same.
        between: called once, when what the client sent before the text `at` has reached the server, the rest not yet.
        end: `fin`: both sides see an orderly end; `reset`: the client gets RST; `silence`: half open, the client's
            bytes still reach the server, and nothing comes back any more.
        chunk: at most so many bytes at once; 1: one at a time.
        delay: seconds before each chunk.
        garbage: bytes that the client gets in place of the server's, once; the rest is swallowed.
        frozen: nothing is forwarded in either direction; what comes meanwhile follows when it ends.
        refuse: new connections are reset at once.
    """

    cut_after: int | None = None
    cut_before: bytes | None = None
    cut_request: bytes | None = None
    request_kept: int | None = None
    at: bytes = b""
    between: Callable[[], None] | None = None
    end: End = "fin"
    chunk: int = 65536
    delay: float = 0.0
    garbage: bytes | None = None
    frozen: bool = False
    refuse: bool = False


class Connection:
    """One client's way to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, behaviour: Behaviour) -> None:
        self.bytes_from_server = 0  # all that the server sent, whether or not it was passed on
        self.faults = 0  # how often this connection was cut, silenced or given garbage
        self._client, self._server = client, server
        self._changed = threading.Condition()
        self._behaviour = behaviour
        self._passed = 0  # since the behaviour was set
        self._held = b""  # what may be the beginning of the text that is looked for, kept back until the rest decides
        self._silent: Behaviour | None = None  # the one under which the server's bytes are swallowed by now
        self._open = True
        self._threads = [threading.Thread(target=turn, daemon=True) for turn in (self._upwards, self._downwards)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def open(self) -> bool:
        return self._open

    def behave(self, behaviour: Behaviour | None = None, **changes: object) -> None:
        """From now on this; `behave(frozen=True)` starts from the behaviour that passes everything."""
        with self._changed:
            self._behaviour = behaviour or replace(Behaviour(), **changes)  # type: ignore[arg-type]
            self._passed, self._silent = 0, None
            self._changed.notify_all()

    def end(self, how: End = "fin") -> None:
        """Ends the connection; `silence` leaves it half open."""
        if how == "silence":
            return self.behave(cut_after=0, end="silence")
        with self._changed:
            if not self._open:
                return
            self._open = False
            self._changed.notify_all()
        if how == "reset":
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
        for side in (self._server, self._client):
            with contextlib.suppress(OSError):
                # A close alone does not wake the thread that reads. A client to be reset must see RST alone.
                side.shutdown(socket.SHUT_RD if side is self._client and how == "reset" else socket.SHUT_RDWR)

    def close(self) -> None:
        self.end()
        for thread in self._threads:
            thread.join()

    # ---------------------------------------------------------------------------------------------------- two threads

    def _upwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                now = self._when_thawed()
                if now.cut_request is not None and now.cut_request in data:
                    self.faults += 1
                    if now.request_kept is not None:
                        self._server.sendall(data[: data.index(now.cut_request) + now.request_kept])
                    self.end(now.end)
                    break
                if now.between is not None and now.at in data:
                    first, data = data[: data.index(now.at)], data[data.index(now.at) :]
                    self._server.sendall(first)
                    self.behave(replace(now, between=None))
                    now.between()
                self._server.sendall(data)
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_WR)

    def _downwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65536):
                self.bytes_from_server += len(data)
                self._hand_down(data)
        self.end()
        self._threads[0].join()
        self._client.close()  # the only place: a closed number may be another's at once
        self._server.close()

    def _when_thawed(self) -> Behaviour:
        with self._changed:
            self._changed.wait_for(lambda: not self._behaviour.frozen or not self._open)
            return self._behaviour

    def _hand_down(self, data: bytes) -> None:
        now = self._when_thawed()
        data, self._held = self._held + data, b""
        if now.cut_before is not None and now.cut_before not in data:
            kept = _overlap(data, now.cut_before)
            data, self._held = data[: len(data) - kept], data[len(data) - kept :]
        while data and self._open:
            now = self._when_thawed()
            if self._silent is now:
                return
            if now.garbage is not None:
                self.faults += 1
                self._client.sendall(now.garbage)
                return self._fault(now)
            allowed, cut = len(data), False
            if now.cut_before is not None and now.cut_before in data:
                allowed, cut = data.index(now.cut_before), True
            if now.cut_after is not None and self._passed + allowed >= now.cut_after:
                allowed, cut = max(0, now.cut_after - self._passed), True
            step = min(allowed, now.chunk)
            if step and now.delay:
                with self._changed:
                    self._changed.wait_for(lambda now=now: not self._open or self._behaviour is not now, now.delay)
            last = cut and step == allowed
            self.faults += last  # before its bytes, so that who sees the fault sees it counted
            self._client.sendall(data[:step])
            data = data[step:]
            with self._changed:
                if self._behaviour is now:
                    self._passed += step
            if last:
                return self._fault(now)

    def _fault(self, now: Behaviour) -> None:
        if now.end == "silence" or now.garbage is not None:
            self._silent = now  # until another is set
        else:
            self.end(now.end)


def _overlap(data: bytes, text: bytes) -> int:
    """The length of the longest end of `data` that `text` starts with."""
    return next((n for n in range(min(len(data), len(text) - 1), 0, -1) if data.endswith(text[:n])), 0)


class ChaosProxy:
    """Forwards a loopback port of its own to a server's, and misbehaves as told.

    Args:
        target_port: the server's, on 127.0.0.1.
        accept: False: a socket that listens and accepts nobody, with no room in its queue.
    """

    def __init__(self, target_port: int, *, accept: bool = True) -> None:
        self.connections: list[Connection] = []
        self._target = target_port
        self._behaviour = Behaviour()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128 if accept else 0)
        self.port: int = self._listener.getsockname()[1]
        self._fill: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        if accept:
            self._thread = threading.Thread(target=self._accept, daemon=True)
            self._thread.start()
        else:
            for _ in range(2):  # the kernel lets one more in than asked; who comes now gets no answer to SYN
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fill.append(filler)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def behave(self, behaviour: Behaviour | None = None, **changes: object) -> None:
        """What all connections do from now on, those that are open and those to come."""
        behaviour = behaviour or replace(Behaviour(), **changes)  # type: ignore[arg-type]
        with self._lock:
            self._behaviour = behaviour
            there = list(self.connections)
        for connection in there:
            connection.behave(behaviour)

    @contextlib.contextmanager
    def behaving(self, **changes: object) -> Iterator[None]:
        """`behave` for the time of a block; everything passes afterwards."""
        self.behave(**changes)
        try:
            yield
        finally:
            self.behave()

    def end_all(self, how: End = "fin") -> None:
        """Ends every open connection; new ones are welcome."""
        for connection in list(self.connections):
            connection.end(how)

    @property
    def faults(self) -> int:
        """How often any connection was cut, silenced or given garbage, so that a test knows that its fault happened."""
        return sum(connection.faults for connection in list(self.connections))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                behaviour = self._behaviour
                if behaviour.refuse:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                    continue
                server = socket.socket()
                try:
                    server.connect(("127.0.0.1", self._target))
                except OSError:  # the server is away: the client sees an end at once
                    server.close()
                    client.close()
                    continue
                for side in (client, server):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(Connection(client, server, behaviour))
                self.connections[-1].start()  # known before its first byte

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread is not None:
            self._thread.join()
        self._listener.close()
        for filler in self._fill:
            filler.close()
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
