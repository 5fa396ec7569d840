"""Connections to arms: HTTP/1.1 with keep-alive, last used first, one pool per arm."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, Protocol
from urllib.parse import urlsplit

import httptools

from crossload.engines.gateway.config import Backend, Limits, Timeouts


class Caller(Protocol):
    """Who waits for an upstream's answer. After `lost` or `ended` nothing more is told."""

    over: bool

    def connected(self, connection: Connection) -> None: ...
    def unreachable(self, message: str, code: str = "unavailable") -> None: ...
    def head(self, status: int, headers: dict[str, str]) -> None: ...
    def data(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, message: str) -> None: ...


class Connection(asyncio.Protocol):
    """One request at a time. `reused` and `heard` tell a stale keep-alive connection from a host that died on us."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: Any = None
        self._parser: Any = None
        self._caller: Caller | None = None
        self._pieces: list[bytes] = []
        self._headers: dict[str, str] = {}
        self._complete = False
        self._told_head = False
        self._keep = False
        self.reused = False
        self.heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, head: bytes, body: bytes, caller: Caller) -> None:
        self._caller = caller
        self._parser = httptools.HttpResponseParser(self)
        self._complete = self._told_head = self.heard = False
        self._headers = {}
        self._pieces = []
        self._transport.write(head + body)

    def pause(self) -> None:
        if not self.closing:
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self.closing:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Hang up now, so that the host stops working on an answer nobody wants."""
        self._caller = None
        if self._transport is not None:
            self._transport.abort()

    # ---- bytes from the host

    def data_received(self, data: bytes) -> None:
        if self._caller is None:
            self._transport.abort()  # bytes nobody asked for
            return
        self.heard = True
        caller = self._caller
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._caller = None
            self._transport.abort()
            caller.lost("the model host does not speak HTTP/1.1")
            return
        if self._pieces and self._told_head and self._caller is caller:
            # All pieces of one read go out as one write.
            pieces, self._pieces = self._pieces, []
            caller.data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._complete and self._caller is caller:
            self._caller = None
            # First give the connection back, then tell: the caller may want it again at once.
            self._pool.release(self, keep=self._keep)
            caller.ended()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._caller is not None:
            self._told_head = True
            self._caller.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._told_head:
            self._complete = True
            # Asked here and not later: the parser forgets it as soon as the message is over.
            self._keep = self._parser.should_keep_alive()
        else:
            self._headers = {}  # 100 Continue and the like

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        caller, self._caller = self._caller, None
        self._pool.forget(self)
        if caller is None or caller.over:
            return
        unframed = "content-length" not in self._headers and "transfer-encoding" not in self._headers
        if self._told_head and unframed and exc is None:
            caller.ended()  # an answer that ends with the connection, as HTTP/1.0 hosts send
        else:
            caller.lost(str(exc) if exc else "the model host closed the connection")


class Pool:
    def __init__(self, backend: Backend, limits: Limits, timeouts: Timeouts) -> None:
        parts = urlsplit(backend.base_url)
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._limits = limits
        self._timeouts = timeouts
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Caller] = deque()
        self._ssl = ssl.create_default_context(cafile=backend.ca_file or None) if self._tls else None
        self.prefix = parts.path.rstrip("/")
        default = self._port == (443 if self._tls else 80)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.host_header = host if default else f"{host}:{self._port}"

    def acquire(self, caller: Caller, fresh: bool = False) -> None:
        """Tell `caller.connected` as soon as there is a connection, or `caller.unreachable`. `fresh` refuses idle
        connections: one of them turned out to be dead, so the others most likely are too."""
        if fresh:
            for connection in self._idle:
                connection.abort()
            self._idle.clear()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing:
                connection.reused = True
                caller.connected(connection)
                return
        if len(self._all) + len(self._connecting) < self._limits.upstream_connections_max:
            task = asyncio.get_running_loop().create_task(self._connect(caller))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        elif len(self._waiting) < self._limits.waiting_max:
            self._waiting.append(caller)
        else:
            caller.unreachable("too many requests wait for this model host", "throttled")

    async def _connect(self, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeouts.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            if not caller.over:
                caller.unreachable(f"the model host cannot be reached ({type(error).__name__})")
            self._serve_waiting()
            return
        self._all.add(connection)
        if caller.over:
            self.release(connection, keep=True)
        else:
            caller.connected(connection)

    def release(self, connection: Connection, *, keep: bool) -> None:
        if not keep or connection.closing:
            connection.abort()
            return
        while self._waiting:
            caller = self._waiting.popleft()
            if not caller.over:
                connection.reused = True
                caller.connected(connection)
                return
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """A place has become free: the one who waited longest may try."""
        while self._waiting:
            caller = self._waiting.popleft()
            if not caller.over:
                self.acquire(caller)
                return

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in list(self._all):
            connection.abort()
