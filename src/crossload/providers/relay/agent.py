"""The agent: a small HTTP/1.1 server in front of one Store, for `relay` at the other end. It decides nothing.

Every request carries the token; nothing of a request is read before it was compared. Bodies are held in memory, within
one budget for all of them; a patch lies in a temporary file without a name until it was applied."""

from __future__ import annotations

import hmac
import json
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from crossload.ports.errors import CrossloadError, Invalid, NotSignedIn, Refused, Throttled, Unavailable
from crossload.ports.store import Store
from crossload.providers.relay import words
from crossload.providers.relay.answering import Answering, Call, Limits, Reply
from crossload.providers.relay.patching import ApplyPatch

_TOKEN_CHARACTERS_MIN = 16
_IDLE_SECONDS = 120.0
_BODY_SECONDS = 30.0
_BUDGET_SECONDS = 20.0
_ALIVE_SECONDS = 20.0  # the client gives up after 120 s of silence
_DRAIN_BYTES_MAX = 4 * 2**20
_BLOCK_BYTES = 2**20
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """`buckets` are names, or patterns with a `*`, that may be touched: none allowed, nothing to serve. Without a
    certificate it listens only on loopback. `memory_bytes_max` is of all bodies together, and at least two times
    `limits.body_bytes_max`."""

    token: str = field(repr=False)
    buckets: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 0
    read_only: bool = False
    certificate: Path | None = None
    certificate_key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    memory_bytes_max: int = 512 * 2**20
    connections_max: int = 256

    def check(self) -> None:
        """Raises Invalid or Refused for what would be open to strangers, or could not work."""
        if len(self.token) < _TOKEN_CHARACTERS_MIN:
            hint = "make one with `openssl rand -hex 32`, and refer to it by env: or file:"
            raise Invalid(f"the token has fewer than {_TOKEN_CHARACTERS_MIN} characters", hint=hint)
        if not self.buckets:
            raise Invalid("no bucket is allowed: there would be nothing to serve", hint="name them with --bucket")
        if (self.certificate is None) != (self.certificate_key is None):
            raise Invalid("a certificate and its key belong together", hint="--cert and --key")
        if self.certificate is None and not _is_loopback(self.host):
            raise Refused(
                f"on {self.host} without TLS anybody on the way reads the token",
                hint="give --cert and --key, or listen on 127.0.0.1 behind a server that ends TLS",
            )
        if self.memory_bytes_max < 2 * self.limits.body_bytes_max:
            raise Invalid("memory for less than two bodies of the largest size")


class Agent:
    """`with Agent(...) as agent:` serves in threads of its own; `serve()` in the calling one, until `stop()`."""

    def __init__(
        self, store: Store, options: AgentOptions, apply_patch: ApplyPatch | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Listens from here on. Raises Invalid and Refused as `options.check`, Unavailable for an address in use."""
        options.check()
        answering = Answering(store, options.buckets, options.limits, apply_patch, read_only=options.read_only)
        try:
            self._server = _Server(answering, options, say)
        except OSError as error:  # ssl.SSLError is one: a certificate that is none
            raise Unavailable(f"cannot listen on {options.host}:{options.port}: {error}") from error
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        name = f"[{host}]" if ":" in str(host) else str(host)
        return f"{'https' if self._server.context is not None else 'http'}://{name}:{port}"

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Ends all connections; what was under way counts as not done, and may be repeated."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> Agent:
        self._thread = threading.Thread(target=self.serve, name="relay-agent", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Budget:
    """Bytes in memory of all requests together. A request takes all it needs at once, so that no two wait for each
    other."""

    def __init__(self, bytes_max: int) -> None:
        self._free = bytes_max
        self._most = bytes_max
        self._some = threading.Condition()

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Raises Invalid for more than there ever is, Throttled when it does not come free in time."""
        if size_bytes > self._most:
            raise Invalid(f"{size_bytes} bytes at once are more than this agent holds", hint="make parts smaller")
        with self._some:
            if not self._some.wait_for(lambda: self._free >= size_bytes, _BUDGET_SECONDS):
                raise Throttled("the agent has no memory free", retry_after_seconds=1.0)
            self._free -= size_bytes
        try:
            yield
        finally:
            with self._some:
                self._free += size_bytes
                self._some.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, answering: Answering, options: AgentOptions, say: Callable[[str], None]) -> None:
        self.answering = answering
        self.options = options
        self.say = say
        self.budget = _Budget(options.memory_bytes_max)
        self.context = _context(options)
        self._room = threading.BoundedSemaphore(options.connections_max)
        self._open: set[socket.socket] = set()
        self._mutex = threading.Lock()
        if ":" in options.host:
            self.address_family = socket.AF_INET6
        super().__init__((options.host, options.port), _Handler)

    def server_bind(self) -> None:
        # The parent asks the name service who we are, which can take half a minute and is told to nobody.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.options.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            request.settimeout(1.0)
            try:
                request.sendall(_BUSY)
            except OSError:
                pass  # it will find out by itself
            request.close()
            return
        with self._mutex:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._mutex:
                self._open.discard(request)
            self._room.release()

    def hang_up(self) -> None:
        with self._mutex:
            for request in self._open:
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # closed already

    def handle_error(self, request: Any, client_address: Any) -> None:
        text = traceback.format_exc()
        if not text.rstrip().rpartition("\n")[2].startswith(("Connection", "Timeout", "BrokenPipe", "ssl.", "OSError")):
            self.say(text)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "crossload-agent"
    sys_version = ""
    timeout = _IDLE_SECONDS
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True

    def setup(self) -> None:
        context = self._serving.context
        if context is not None:
            self.request.settimeout(_BODY_SECONDS)  # the handshake is made here, not where others wait to be let in
            self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            if self._serving.context is not None:
                self.request.close()  # the wrapped one; the server knows only what was inside

    @property
    def _serving(self) -> _Server:
        return cast(_Server, self.server)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: addresses of requests hold keys."""

    def _answer(self) -> None:
        self._unread = -1
        with ExitStack() as held:
            try:
                self._check_token()
                self._send(self._serving.answering.answer(self._call(held)))
            except CrossloadError as error:
                self._refuse(*words.error_to_json(error))
            except (OSError, EOFError):
                self.close_connection = True  # the other end is gone in the middle of its request: nothing was done
            except Exception:
                self._refuse(*words.error_to_json(Unavailable("the agent failed; its own output says at what")))
                raise

    do_GET = do_PUT = do_POST = do_DELETE = _answer

    def _check_token(self) -> None:
        length = self.headers.get("content-length", "0")
        self._unread = int(length) if length.isascii() and length.isdigit() else -1
        expected = f"Bearer {self._serving.options.token}".encode()
        given = self.headers.get("authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, expected):
            self._serving.say(f"a wrong token from {self.client_address[0]}")
            raise NotSignedIn("the agent knows another token", hint="check `token` of this place")
        if self._unread < 0 or "transfer-encoding" in self.headers:
            raise Invalid("a request must say its length")

    def _call(self, held: ExitStack) -> Call:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(words.ROOT)
        if path == parts.path:
            raise Invalid("this agent speaks version 1 of the relay", hint="upgrade Crossload at one of the ends")
        try:
            names = [unquote(item, errors="strict") for item in path.split("/")[1:]]
            query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20, errors="strict"))
        except ValueError as error:
            raise Invalid(f"the address makes no sense: {error}") from error
        if len(names) > 2:
            raise Invalid("an address is /v1/BUCKET/KEY, with the key as one segment")
        bucket, key = (*names, "", "")[:2]
        told = words.from_header(self.headers.get(words.TOLD, ""))
        return Call(
            self.command, query.get("do", ""), bucket, key, query, told, self._unread,
            lambda size: held.enter_context(self._serving.budget.hold(size)), self._body, self._blocks,
            self._stay_in_touch,
        )  # fmt: skip

    def _body(self) -> bytearray:
        data = bytearray(self._unread)
        view, done = memoryview(data), 0
        self.request.settimeout(_BODY_SECONDS)
        while done < len(data):
            count = self.rfile.readinto(view[done:])  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
            if not count:
                raise EOFError("the body was cut off")
            done += int(count)  # pyright: ignore[reportUnknownArgumentType]
        self._unread = 0
        return data

    def _blocks(self) -> Iterator[bytes]:
        self.request.settimeout(_BODY_SECONDS)
        while self._unread:
            block = self.rfile.read(min(_BLOCK_BYTES, self._unread))
            if not block:
                raise EOFError("the body was cut off")
            self._unread -= len(block)
            yield block

    @contextmanager
    def _stay_in_touch(self) -> Iterator[None]:
        """Say from time to time that the work goes on (RFC 2518 section 10.1): silence would be taken for death."""
        over = threading.Event()

        def tell() -> None:
            while not over.wait(_ALIVE_SECONDS):
                try:
                    self.request.sendall(_PROCESSING)
                except OSError:
                    return  # the answer itself will find out

        thread = threading.Thread(target=tell, name="relay-touch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _send(self, reply: Reply) -> None:
        body = json.dumps(reply.json).encode() if reply.json is not None else reply.body
        self.send_response(200)
        self.send_header("content-type", "application/json" if reply.json is not None else "application/octet-stream")
        self.send_header("content-length", str(len(body)))
        if reply.told is not None:
            self.send_header(words.TOLD, words.to_header(reply.told))
        self.end_headers()
        self.request.settimeout(_IDLE_SECONDS)
        self.wfile.write(body)
        self.wfile.flush()

    def _refuse(self, status: int, told: dict[str, Any]) -> None:
        """An answer to a request whose body may lie unread: then this connection cannot be used again."""
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if self._unread:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if self._unread:
            self._drain()

    def _drain(self) -> None:
        """Take some of what is still coming: a connection that is closed over it loses our answer."""
        try:
            self.request.settimeout(1.0)
            left = _DRAIN_BYTES_MAX
            while left > 0 and (block := self.rfile.read1(_BLOCK_BYTES)):  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
                left -= len(block)  # pyright: ignore[reportUnknownArgumentType]
        except OSError:
            return


def _context(options: AgentOptions) -> ssl.SSLContext | None:
    if options.certificate is None or options.certificate_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.certificate, options.certificate_key)
    return context


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
