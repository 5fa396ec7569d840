"""The HTTP base of the lab's own servers: JSON in, JSON out, on 127.0.0.1."""

from __future__ import annotations

import hmac
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_BODY_BYTES_MAX = 8 * 1024 * 1024


class JsonHandler(BaseHTTPRequestHandler):
    """Keeps connections open; never prints request lines, which may hold secrets."""

    protocol_version = "HTTP/1.1"
    # Without it the kernel waits 40 ms for more before it sends a small answer.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        return None

    def body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _BODY_BYTES_MAX:
            self.close_connection = True
            raise ValueError("the request is too large")
        return self.rfile.read(length)

    def json_body(self) -> dict[str, Any]:
        """The request's JSON object; an empty one for an empty body. Raises ValueError."""
        raw = self.body()
        value = json.loads(raw) if raw.strip() else {}
        if not isinstance(value, dict):
            raise ValueError("a JSON object is expected")
        return value

    def reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def bears(self, key: str) -> bool:
        """True when the request carries this bearer key."""
        return hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {key}".encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exception(), ConnectionError):
            return  # the client went away; that is its right
        super().handle_error(request, client_address)


def serve(handler: type[BaseHTTPRequestHandler], port: int) -> None:
    """Serve until TERM when called in the main thread, else until the process ends."""
    server = _Server(("127.0.0.1", port), handler)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    server.serve_forever(poll_interval=1.0)
