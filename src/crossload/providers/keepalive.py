"""HTTP/1.1 over kept-alive connections and plain sockets: a quarter of the CPU of a general client per small object.

Bodies come back as the bytes that were sent: nothing is decompressed, redirected or retried on its own, with one
exception (a kept connection that the server closed meanwhile is opened again). A body may be received straight into the
caller's buffer, and is sent from it: nothing is copied on the way."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from crossload.ports import errors

Body = bytes | bytearray | memoryview

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 120.0
_REFUSAL_SECONDS = 2.0  # how long a server that hangs up on a body may take to say why
_IDLE_MAX = 64
_IDLE_SURE_SECONDS = 1.0
_HEAD_BYTES_MAX = 64 * 1024
_JOINED_BYTES_MAX = 16 * 1024  # a body up to this size goes out with its head, as one segment
_NO_BODY = frozenset({204, 304})
_HEADER = re.compile(r"\r\n([^:\r\n]+):[ \t]*([^\r\n]*?)[ \t]*(?=\r\n|\Z)")
_Host = tuple[str, str]  # scheme, host:port
_lock = threading.Lock()
_idle: dict[_Host, list[Connection]] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read whole. Header names are lower-case. `filled` counts the bytes in the caller's buffer; then
    `content` is empty."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    path: str
    filled: int = 0

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises Invalid when the body is no JSON."""
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise errors.Invalid(f"{self.path}: the answer is no JSON: {self.text[:120]!r}") from error


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    content: Body | None = None,
    into: memoryview | None = None,
) -> Answer:
    """One request. A good answer's body goes into `into` when that is given, as far as it fits; any other is returned.

    Raises Unavailable when no whole answer came back, Invalid for a header that HTTP cannot carry."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode(params) if params else "")))
    target = (parts.path or "/") + (f"?{query}" if query else "")
    return send_to((parts.scheme, parts.netloc.rpartition("@")[2]), method, target, headers, content, into)


def send_to(
    host: _Host,
    method: str,
    target: str,
    headers: Mapping[str, str],
    content: Body | None = None,
    into: memoryview | None = None,
) -> Answer:
    """`send` for callers that have taken the address apart already: `host` is (scheme, host:port)."""
    path = target.partition("?")[0]
    head = _head(host, method, target, headers, content)
    try:
        connection, status, found = _exchange(host, head, content)
        try:
            good = into if 200 <= status < 300 else None
            body, filled = connection.body(method, status, found, good)
        except ValueError as error:  # a length that is no number
            connection.close()
            raise _Garbled(f"{error}") from error
        except BaseException:
            connection.close()
            raise
    except (OSError, _Garbled) as error:
        raise errors.Unavailable(f"{method} {path}: {error or type(error).__name__}") from error
    if connection.spent:
        connection.close()
    else:
        _keep(host, connection)
    return Answer(status, found, body, path, filled)


def _head(host: _Host, method: str, target: str, headers: Mapping[str, str], content: Body | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"host: {host[1]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if content is not None or method in ("PUT", "POST", "PATCH"):
        lines.append(f"content-length: {len(content or b'')}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise errors.Invalid(f"{method} {target.partition('?')[0]}: a line break in a header or in the address")
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise errors.Invalid(f"{method} {target.partition('?')[0]}: {error}") from error


def _exchange(host: _Host, head: bytes, content: Body | None) -> tuple[Connection, int, dict[str, str]]:
    while True:
        kept = _take(host)
        connection = kept or Connection(host)
        try:
            connection.request(head, content)
            return connection, *connection.answer()
        except (ConnectionError, _Garbled):
            connection.close()
            if kept is None or connection.heard:
                raise
            # The server ended a connection that lay idle: our request met a closed door, so it may go again.
        except BaseException:
            connection.close()
            raise


class _Garbled(Exception):
    """What came back is no HTTP/1.1, or ended in the middle."""


class Connection:
    """One connection, used by one request at a time. `heard`: the server has begun to answer the request; `spent`: it
    may not be used for another."""

    def __init__(self, host: _Host) -> None:
        self._socket = _connect(*host)
        self._plain = not isinstance(self._socket, ssl.SSLSocket)
        self._buffer = bytearray(_HEAD_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._from = self._to = 0  # bytes received behind the head, not handed out yet
        self.idle_since = 0.0
        self.heard = self.spent = False

    def request(self, head: bytes, content: Body | None) -> None:
        self._from = self._to = 0
        self.heard = False
        try:
            if not content:
                self._socket.sendall(head)
            elif len(content) <= _JOINED_BYTES_MAX:
                self._socket.sendall(b"".join((head, content)))
            else:
                self._socket.sendall(head)
                self._socket.sendall(content)
        except (ConnectionError, ssl.SSLError):
            # A server that refuses a request may stop listening to its body; what it said is still in the socket.
            self.spent = True
            _limit(self._socket, _REFUSAL_SECONDS)
            if not self._more():
                raise

    def answer(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the final answer."""
        while True:
            end = self._find_head()
            text = self._buffer[self._from : end].decode("latin-1")
            self._from = end + 4
            status = _status(text)
            if status >= 200:
                break
        found = _HEADER.findall(text)
        headers = {name.lower(): value for name, value in found}
        if len(headers) < len(found):  # a header that comes twice is one list (RFC 9110 section 5.3)
            headers = {}
            for name, value in found:
                name = name.lower()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if headers.get("connection", "").lower() == "close" or text.startswith("HTTP/1.0"):
            self.spent = True
        return status, headers

    def body(self, method: str, status: int, headers: Mapping[str, str], into: memoryview | None) -> tuple[bytes, int]:
        """The rest of the answer: (its bytes, or b"" and how many went into the buffer)."""
        if method == "HEAD" or status in _NO_BODY:
            return b"", 0
        if headers.get("transfer-encoding", "").lower() == "chunked":
            data = self._chunks()
        elif "content-length" in headers:
            length = int(headers["content-length"])
            if into is not None:
                if length > len(into):
                    self.spent = True  # the rest is nobody's
                return b"", self._fill(into[:length])
            data = bytearray(length)
            self._fill(memoryview(data))
        else:
            self.spent = True
            data = self._to_the_end()
        if into is None:
            return bytes(data), 0
        count = min(len(into), len(data))
        into[:count] = data[:count]
        return b"", count

    def alive(self) -> bool:
        """Whether a kept connection may be used again: nothing may have come since, not even its end."""
        if time.monotonic() - self.idle_since < _IDLE_SURE_SECONDS:
            return True
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        self._socket.close()

    def _find_head(self) -> int:
        seen = self._from
        while True:
            end = self._buffer.find(b"\r\n\r\n", seen, self._to)
            if end >= 0:
                return end
            seen = max(self._from, self._to - 3)
            if self._to == len(self._buffer):
                raise _Garbled("the head of the answer has no end")
            if not self._more():
                raise ConnectionResetError("the server closed the connection without an answer")

    def _more(self) -> int:
        try:
            count = self._socket.recv_into(self._view[self._to :])
        except BlockingIOError as error:
            raise TimeoutError(f"no answer for {_SILENCE_SECONDS:.0f} s") from error
        self._to += count
        self.heard = self.heard or count > 0
        return count

    def _fill(self, view: memoryview) -> int:
        """Fill the view to its end: first with what came along with the head."""
        done = min(len(view), self._to - self._from)
        view[:done] = self._view[self._from : self._from + done]
        self._from += done
        flags = socket.MSG_WAITALL if self._plain else 0  # one call for all of it, where the kernel can
        while done < len(view):
            try:
                count = self._socket.recv_into(view[done:], 0, flags)
            except BlockingIOError as error:
                raise TimeoutError(f"no byte for {_SILENCE_SECONDS:.0f} s") from error
            if not count:
                raise _Garbled(f"the connection ended after {done} of {len(view)} bytes")
            done += count
        return done

    def _chunks(self) -> bytearray:
        data = bytearray()
        while True:
            size = int(self._line().partition(b";")[0], 16)
            piece = bytearray(size)
            self._fill(memoryview(piece))
            data += piece
            if size:
                self._line()
                continue
            while self._line():  # trailers
                pass
            return data

    def _line(self) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n", self._from, self._to)
            if end >= 0:
                line = bytes(self._view[self._from : end])
                self._from = end + 2
                return line
            held = self._to - self._from
            if held >= _HEAD_BYTES_MAX // 2:
                raise _Garbled("a line of the answer has no end")
            self._buffer[:held] = self._buffer[self._from : self._to]
            self._from, self._to = 0, held
            if not self._more():
                raise _Garbled("the connection ended in the middle of the answer")

    def _to_the_end(self) -> bytearray:
        data = bytearray(self._view[self._from : self._to])
        while True:
            self._from = self._to = 0
            if not self._more():
                return data
            data += self._view[: self._to]


def _status(line: str) -> int:
    if not line.startswith("HTTP/1.") or not line[9:12].isdigit():
        raise _Garbled(f"no HTTP/1.1: {line[:60]!r}")
    return int(line[9:12])


def _take(host: _Host) -> Connection | None:
    while True:
        with _lock:
            idle = _idle.get(host)
            connection = idle.pop() if idle else None
        if connection is None or connection.alive():
            return connection
        connection.close()


def _keep(host: _Host, connection: Connection) -> None:
    connection.idle_since = time.monotonic()
    with _lock:
        idle = _idle.setdefault(host, [])
        if len(idle) < _IDLE_MAX:
            idle.append(connection)
            return
    connection.close()


def _after_fork() -> None:
    """Two processes on one connection would read each other's answers: a child begins with none."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)


def close_idle() -> None:
    """Close all kept connections."""
    with _lock:
        connections = [connection for idle in _idle.values() for connection in idle]
        _idle.clear()
    for connection in connections:
        connection.close()


atexit.register(close_idle)


def _connect(scheme: str, netloc: str) -> socket.socket:
    name, port = _split(netloc, 443 if scheme == "https" else 80)
    proxy = getproxies().get(scheme, "") if scheme == "https" and not proxy_bypass(netloc) else ""
    via = urlsplit(proxy) if proxy else None
    address = (via.hostname or "", via.port or 80) if via else (name, port)
    plain = socket.create_connection(address, timeout=_CONNECT_SECONDS)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if via is not None:
            _tunnel(plain, f"{name}:{port}", unquote(via.username or ""), unquote(via.password or ""))
        made = _trust().wrap_socket(plain, server_hostname=name) if scheme == "https" else plain
    except BaseException:
        plain.close()
        raise
    _limit(made, _SILENCE_SECONDS)
    return made


def _limit(made: socket.socket, seconds: float) -> None:
    """How long the other side may be silent. The kernel keeps the time for a plain socket: with Python's own timeout
    every receive costs a second system call."""
    if isinstance(made, ssl.SSLSocket):
        made.settimeout(seconds)
        return
    made.setblocking(True)
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _split(netloc: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{netloc}")
    return parts.hostname or "", parts.port or port


def _tunnel(plain: socket.socket, target: str, user: str, password: str) -> None:
    """CONNECT (RFC 9110 section 9.3.6): from here on the proxy only passes bytes on."""
    lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
    if user:
        lines.append("proxy-authorization: Basic " + b64encode(f"{user}:{password}".encode()).decode())
    plain.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    said = b""
    while b"\r\n\r\n" not in said:
        piece = plain.recv(1)  # nothing of what follows the head is ours to take
        if not piece or len(said) > _HEAD_BYTES_MAX:
            raise ConnectionResetError("the proxy closed the connection")
        said += piece
    first = said.partition(b"\r\n")[0].decode("latin-1")
    if _status(first) != 200:
        raise ConnectionRefusedError(f"the proxy answers {first[9:80]}")


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """The system's certificates; SSL_CERT_FILE and SSL_CERT_DIR name others (OpenSSL)."""
    return ssl.create_default_context()
