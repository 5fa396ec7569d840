"""HTTP/1.1 over kept-alive connections: a third of the CPU of a general client per small object.

Bodies come back as the bytes that were sent: nothing is decompressed, redirected or retried on its own, with one
exception (a kept connection that the server closed meanwhile is opened again)."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from crossload.ports import errors

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 120.0
_IDLE_MAX = 64
_Host = tuple[str, str]  # scheme, host:port
_lock = threading.Lock()
_idle: dict[_Host, list[http.client.HTTPConnection]] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read whole. Header names are lower-case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    path: str

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
    content: bytes | None = None,
) -> Answer:
    """Raises Unavailable when no whole answer came back."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode(params) if params else "")))
    target = (parts.path or "/") + (f"?{query}" if query else "")
    host = (parts.scheme, parts.netloc.rpartition("@")[2])
    try:
        connection, response = _exchange(host, method, target, headers, content)
        try:
            body = response.read()
        except BaseException:
            connection.close()
            raise
    except ValueError as error:  # a header that HTTP cannot carry
        raise errors.Invalid(f"{method} {parts.path}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise errors.Unavailable(f"{method} {parts.path}: {error or type(error).__name__}") from error
    if response.will_close:
        connection.close()
    else:
        _keep(host, connection)
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body, parts.path)


def _exchange(
    host: _Host, method: str, target: str, headers: Mapping[str, str], content: bytes | None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    while True:
        kept = _take(host)
        connection = kept or _connect(*host)
        try:
            connection.request(method, target, content, dict(headers))
            return connection, connection.getresponse()
        except ConnectionError:  # RemoteDisconnected is one
            connection.close()
            if kept is None:
                raise
            # The server ended a connection that lay idle: our request met a closed door, so it may go again.
        except BaseException:
            connection.close()
            raise


def _take(host: _Host) -> http.client.HTTPConnection | None:
    with _lock:
        idle = _idle.get(host)
        return idle.pop() if idle else None


def _keep(host: _Host, connection: http.client.HTTPConnection) -> None:
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


def _connect(scheme: str, netloc: str) -> http.client.HTTPConnection:
    if scheme == "https":
        proxy = "" if proxy_bypass(netloc) else getproxies().get("https", "")
        via = urlsplit(proxy).netloc if proxy else ""
        connection = http.client.HTTPSConnection(via or netloc, timeout=_CONNECT_SECONDS)
        if via:
            connection.set_tunnel(netloc)
    else:
        connection = http.client.HTTPConnection(netloc, timeout=_CONNECT_SECONDS)
    connection.connect()
    connection.sock.settimeout(_SILENCE_SECONDS)
    return connection
