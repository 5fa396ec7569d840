"""HTTP/1.1 to one registry and to wherever it sends us: kept connections, streamed bodies both ways, TLS, proxies.

Bodies are never held whole, except answers that are asked for with a limit. Nothing is retried on its own but a request
that met a kept connection which the server had closed meanwhile."""

from __future__ import annotations

import base64
import http.client
import select
import ssl
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from crossload.ports import errors

CHUNK_BYTES = 2**20
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 120.0
_IDLE_MAX = 16
_TEXT_BYTES_MAX = 2**20
_HOPS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Body:
    """A request body of a known length that is read once, piece by piece."""

    pieces: Iterable[bytes]
    length: int


class Reply:
    """One answer whose body is still on its way. Exactly one of `read`, `pieces` and `close` must end it. Header names
    are lower-case; `url` is where it came from in the end."""

    def __init__(
        self, wire: Wire, connection: http.client.HTTPConnection, method: str, url: str, *, reusable: bool
    ) -> None:  # fmt: skip
        self._wire, self._connection, self._reusable = wire, connection, reusable
        self._response = connection.getresponse()
        self.url = url
        self.what = f"{method} {urlsplit(url).path}"
        self.status_code = self._response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in self._response.getheaders()}
        self.challenges = [value for name, value in self._response.getheaders() if name.lower() == "www-authenticate"]

    def read(self, limit: int = _TEXT_BYTES_MAX) -> bytes:
        """The whole body. Invalid when it is longer than `limit` bytes."""
        data = b"".join(self.pieces(limit + 1))
        if len(data) > limit:
            raise errors.Invalid(f"{self.what}: the answer is longer than {limit} bytes")
        return data

    def pieces(self, most: int | None = None) -> Iterator[bytes]:
        """The body in pieces of at most 1 MiB, `most` bytes of it. Unavailable when it ends early."""
        left = most
        whole = False
        try:
            while left is None or left > 0:
                piece = self._response.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not piece:
                    if self._response.length:  # read(n) says nothing of a body that ends early
                        raise http.client.IncompleteRead(b"", self._response.length)
                    break
                left = None if left is None else left - len(piece)
                yield piece
            whole = self._response.isclosed()
        except (OSError, http.client.HTTPException) as error:
            raise errors.Unavailable(f"{self.what}: {error or type(error).__name__}") from error
        finally:
            if whole and self._reusable and not self._response.will_close:
                self._wire.keep(origin_of(self.url), self._connection)
            else:
                self._connection.close()

    def close(self) -> None:
        """End it, keeping the connection when little is left to read."""
        for _ in self.pieces(_TEXT_BYTES_MAX):
            pass


class Wire:
    """Connections by origin. `ca_file` is PEM, "" for the system's authorities alone."""

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._mutex = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        weakref.finalize(self, _close_all, self._idle)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None = None,
        *, follow: bool = False,
    ) -> Reply:  # fmt: skip
        """Raises Unavailable when no answer came. `follow`: go where a redirect leads, with our `authorization` to our
        own origin only, and never from https to http."""
        sent = dict(headers)
        for _ in range(_HOPS_MAX):
            reply = self._once(method, url, sent, body)
            where = reply.headers.get("location", "")
            if not follow or reply.status_code not in _REDIRECTS or not where:
                return reply
            reply.close()
            aim = urljoin(url, where)
            if urlsplit(aim).scheme not in ("https", urlsplit(url).scheme):
                raise errors.Refused(f"{method} {urlsplit(url).path}: sent on from https to {urlsplit(aim).scheme}")
            if origin_of(aim) != origin_of(url):
                sent.pop("authorization", None)
            url = aim
        raise errors.Invalid(f"{method} {urlsplit(url).path}: sent on more than {_HOPS_MAX} times")

    def keep(self, origin: str, connection: http.client.HTTPConnection) -> None:
        with self._mutex:
            idle = self._idle.setdefault(origin, [])
            if len(idle) < _IDLE_MAX:
                idle.append(connection)
                return
        connection.close()

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None) -> Reply:
        parts = urlsplit(url)
        origin = origin_of(url)
        while True:
            kept = self._take(origin)
            connection: http.client.HTTPConnection | None = kept
            try:
                connection = kept or self._connect(parts)
                aim, more = _aim(parts)
                whole = self._send(connection, method, aim, {**headers, **more}, body)
                return Reply(self, connection, method, url, reusable=whole)
            except (OSError, http.client.HTTPException) as error:
                if connection is not None:
                    connection.close()
                # The server ended a connection that lay idle: the request met a closed door, so it may go again. A
                # body that was begun is gone: whoever sent it asks the server how much it has.
                if kept is not None and isinstance(error, ConnectionError) and not isinstance(body, Body):
                    continue
                if isinstance(error, ssl.SSLCertVerificationError):
                    text = f"{parts.netloc}: its certificate is not trusted: {error.verify_message}"
                    raise errors.NotSignedIn(text, hint="name its authority with the setting `ca_file`") from error
                raise errors.Unavailable(f"{method} {parts.path}: {error or type(error).__name__}") from error
            except ValueError as error:  # a header that HTTP cannot carry
                raise errors.Invalid(f"{method} {parts.path}: {error}") from error
            except BaseException:  # our own body failed: what was sent of it makes the connection useless
                if connection is not None:
                    connection.close()
                raise

    def _send(
        self, connection: http.client.HTTPConnection, method: str, aim: str, headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> bool:  # fmt: skip
        """False when the server hung up before it had the whole body."""
        if not isinstance(body, Body):
            length = {} if body is None and method not in ("POST", "PUT", "PATCH") else {"content-length": "0"}
            if body is not None:
                length = {"content-length": str(len(body))}
            connection.request(method, aim, body, {**headers, **length})
            return True
        connection.putrequest(method, aim, skip_accept_encoding=True)
        for name, value in {**headers, "content-length": str(body.length)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        sent = 0
        for piece in body.pieces:
            if sent + len(piece) > body.length:
                raise errors.Invalid(f"{method} {aim.partition('?')[0]}: the body is longer than announced")
            try:
                connection.send(piece)
            except OSError:
                # A server that refuses answers before it has read everything and then hangs up: its answer, if it is
                # still there, says more than the broken pipe.
                return False
            sent += len(piece)
        if sent != body.length:
            raise errors.Unavailable(
                f"{method} {aim.partition('?')[0]}: the body ended {body.length - sent} bytes early"
            )
        return True

    def _take(self, origin: str) -> http.client.HTTPConnection | None:
        while True:
            with self._mutex:
                idle = self._idle.get(origin)
                connection = idle.pop() if idle else None
            if connection is None or connection.sock is None:
                return None
            readable, _, _ = select.select([connection.sock], [], [], 0)
            if not readable:
                return connection
            connection.close()  # nobody asked anything: what can be read is the end

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        proxy = _proxy_for(parts)
        host = (proxy or parts).netloc.rpartition("@")[2]
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, timeout=_CONNECT_SECONDS, context=self._trust())
            if proxy is not None:
                connection.set_tunnel(parts.netloc, headers=_proxy_headers(proxy))
        else:
            connection = http.client.HTTPConnection(host, timeout=_CONNECT_SECONDS)
        connection.connect()
        connection.sock.settimeout(_SILENCE_SECONDS)
        return connection

    def _trust(self) -> ssl.SSLContext:
        with self._mutex:
            if self._context is None:
                try:
                    self._context = ssl.create_default_context()
                    if self._ca_file:
                        self._context.load_verify_locations(cafile=self._ca_file)
                except OSError as error:
                    raise errors.Invalid(f"cannot read the authority file {self._ca_file}: {error}") from error
            return self._context


def _close_all(idle: dict[str, list[http.client.HTTPConnection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    if proxy_bypass(parts.netloc):
        return None
    found = getproxies().get(parts.scheme, "")
    return urlsplit(found if "//" in found else f"//{found}") if found else None


def _aim(parts: SplitResult) -> tuple[str, dict[str, str]]:
    """The request's target, and what a proxy wants: a path, or the whole address for a proxy in front of plain HTTP."""
    path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    proxy = _proxy_for(parts) if parts.scheme == "http" else None
    return (f"http://{parts.netloc}{path}", _proxy_headers(proxy)) if proxy is not None else (path, {})


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
