"""The client side of HTTP/1.1: one protocol object per connection, no task per request or per chunk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import httptools

from crossload.engines.gateway.config import Limits

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_PIPELINE_MAX = 8
_NEVER = float("inf")


class Received(NamedTuple):
    """One whole request. `target` is path and query as sent; header names are lower-case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Handler(Protocol):
    def handle(self, client: ClientConnection, request: Received) -> None:
        """Answer now or later, exactly once, through the connection."""
        ...

    def refuse(self, client: ClientConnection, target: str, code: str, message: str) -> None:
        """Answer a request that could not even be read."""
        ...

    def opened(self, client: ClientConnection) -> bool:
        """False when there are too many connections already."""
        ...

    def closed(self, client: ClientConnection) -> None: ...


class Watcher(Protocol):
    """Whoever works on this connection's request, told what happens to the client."""

    def client_gone(self) -> None: ...
    def client_slow(self, slow: bool) -> None: ...


class ClientConnection(asyncio.Protocol):
    """`deadline` is when it should have sent a whole request (monotonic); infinite while an answer is on its way."""

    def __init__(self, handler: Handler, limits: Limits, request_seconds: float, idle_seconds: float) -> None:
        self._handler = handler
        self._limits = limits
        self._request_seconds = request_seconds
        self._idle_seconds = idle_seconds
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._queue: deque[tuple[Received, bool, bool]] = deque()
        self._busy = False
        self._keep_alive = True
        self._chunked = True
        self._refused: tuple[str, str] | None = None  # code and message of what cannot be read
        self._deaf = False
        self._bodyless = False
        self._paused = False
        self._reading_headers = False
        self._header_bytes = 0
        self._unparsed_bytes = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self.watcher: Watcher | None = None
        self.deadline = time.monotonic() + idle_seconds
        self.peer = ""

    # ---- from the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._transport.set_write_buffer_limits(self._limits.write_buffer_bytes)
        if not self._handler.opened(self):
            self._keep_alive = False
            self._handler.refuse(self, "/", "unavailable", "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.closed(self)
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.client_gone()

    def pause_writing(self) -> None:
        if self.watcher is not None:
            self.watcher.client_slow(True)

    def resume_writing(self) -> None:
        if self.watcher is not None:
            self.watcher.client_slow(False)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return  # the last answer is on its way out and the connection closes after it
        if not self._busy and self.deadline - time.monotonic() > self._request_seconds:
            self.deadline = time.monotonic() + self._request_seconds
        if self._reading_headers:
            self._unparsed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer we do not take: the request was answered as HTTP/1.1, and what follows cannot be trusted.
            self._deaf = True
        except httptools.HttpParserError as error:
            self._refuse("invalid", f"not a valid HTTP/1.1 request ({type(error).__name__})")
        if self._reading_headers and self._unparsed_bytes > self._limits.header_bytes_max:
            # One header without an end is told to us only when it ends, so the bytes themselves are counted too.
            self._refuse("headers_too_large", f"headers may have {self._limits.header_bytes_max} bytes")
        if self._refused:
            self._next()

    # ---- from the parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._header_bytes = self._unparsed_bytes = 0
        self._reading_headers = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self._header_bytes += len(name) + len(value) + 4
        # A repeated header is joined, never overwritten: a signature covers all of its values.
        self._headers[key] = f"{self._headers[key]},{text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._reading_headers = False
        if self._header_bytes + len(self._url) > self._limits.header_bytes_max:
            self._refuse("headers_too_large", f"headers may have {self._limits.header_bytes_max} bytes")
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body_bytes_max:
            self._refuse("too_large", f"the body may have {self._limits.body_bytes_max} bytes")
        elif self._headers.get("expect", "").lower() == "100-continue" and not self._busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            self._body = []
            self._refuse("too_large", f"the body may have {self._limits.body_bytes_max} bytes")
        elif not self._refused:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Received(self._parser.get_method().decode(), self._url.decode("latin-1"), self._headers, body)
        chunked = self._parser.get_http_version() != "1.0"
        keep_alive = self._parser.should_keep_alive() and "upgrade" not in self._headers
        self._queue.append((request, keep_alive, chunked))
        self._url = b""
        if len(self._queue) > _PIPELINE_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._next()

    def _refuse(self, code: str, message: str) -> None:
        if not self._refused:
            self._refused = (code, message)

    def _next(self) -> None:
        """Work on the next whole request, in the order they came; what cannot be read is answered last."""
        if self._busy or self._transport.is_closing():
            return
        if self._queue:
            request, self._keep_alive, self._chunked = self._queue.popleft()
            self._busy = True
            self._bodyless = request.method == "HEAD"
            self.deadline = _NEVER
            if self._paused and len(self._queue) < _PIPELINE_MAX:
                self._paused = False
                self._transport.resume_reading()
            self._handler.handle(self, request)
        elif self._refused:
            self._busy = True
            self._keep_alive = False
            code, message = self._refused
            self._handler.refuse(self, self._url.decode("latin-1"), code, message)

    # ---- answers

    @property
    def gone(self) -> bool:
        return self._transport.is_closing()

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer, and the end of this request."""
        if not self.gone:
            length = b"content-length: %d\r\n\r\n" % len(body)
            self._transport.write(self._head(status, headers) + length + (b"" if self._bodyless else body))
        self.done()

    def start_stream(self, headers: Mapping[str, str]) -> None:
        if self.gone:
            return
        if not self._chunked:
            self._keep_alive = False
        framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._transport.write(self._head(200, headers) + framing)

    def chunk(self, data: bytes) -> None:
        if data and not self.gone:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_stream(self, data: bytes = b"") -> None:
        self.chunk(data)
        if self._chunked and not self.gone:
            self._transport.write(b"0\r\n\r\n")
        self.done()

    def break_stream(self) -> None:
        """Close without the last chunk, so that the client sees a broken answer and not a short one."""
        self.watcher = None
        self._transport.abort()

    def timed_out(self) -> None:
        """The deadline has passed: answer a half-sent request, close a quiet connection."""
        if self._reading_headers or self._url or self._body:
            self._refuse("request_timeout", "the request did not arrive in time")
            self._next()
        else:
            self._transport.close()

    def close(self) -> None:
        if not self._busy:
            self._transport.close()
        self._keep_alive = False

    def done(self) -> None:
        self.watcher = None
        if not self._keep_alive:
            self._transport.close()
            return
        self._busy = False
        self.deadline = time.monotonic() + self._idle_seconds
        self._next()

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self._keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n").encode("latin-1", "replace")
