"""A TCP relay in a process of its own that counts what a client sends: all bytes, and those of the requests' heads.

Nobody who is measured can see or bend the count. Heads are told from bodies by HTTP/1.1's own rules; whatever cannot
be understood counts as body, against the client."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BLOCK_BYTES = 256 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE)
_CODED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Counts:
    """From clients to the server. `sent_bytes` is everything, `head_bytes` and `requests` what of it were heads."""

    sent_bytes: int
    head_bytes: int
    requests: int

    @property
    def body_bytes(self) -> int:
        return self.sent_bytes - self.head_bytes

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.sent_bytes - other.sent_bytes, self.head_bytes - other.head_bytes, self.requests - other.requests
        )


class Counter:
    """A relay's address, and its counts at any time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{int(self._line())}"

    def counts(self) -> Counts:
        assert self._process.stdin is not None
        print("?", file=self._process.stdin, flush=True)
        return Counts(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError("the counting relay has ended")
        return line


@contextlib.contextmanager
def counted(url: str) -> Iterator[Counter]:
    """A relay to the server at `url`."""
    there = urlsplit(url)
    command = [sys.executable, str(Path(__file__).resolve()), str(there.hostname), str(there.port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Counter(process)
    finally:
        process.kill()
        process.wait()


class Sums:
    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._sent = self._heads = self._requests = 0

    def add(self, sent: int, heads: int, requests: int) -> None:
        with self._mutex:
            self._sent += sent
            self._heads += heads
            self._requests += requests

    def told(self) -> str:
        with self._mutex:
            return json.dumps({"sent_bytes": self._sent, "head_bytes": self._heads, "requests": self._requests})


class Reader:
    """Follows one connection's requests: where a head ends, and how long its body is."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._body_left = 0
        self._lost = False  # from here on everything is body

    def feed(self, data: memoryview) -> tuple[int, int]:
        """(bytes of heads among these, requests whose head ends here)."""
        heads = requests = at = 0
        while at < len(data) and not self._lost:
            if self._body_left:
                taken = min(self._body_left, len(data) - at)
                self._body_left -= taken
                at += taken
                continue
            before = len(self._head)
            self._head += data[at : at + _HEAD_BYTES_MAX]
            end = self._head.find(b"\r\n\r\n", max(0, before - 3))
            if end < 0 and len(self._head) > _HEAD_BYTES_MAX:
                self._lost = True
            elif end < 0:
                taken = len(self._head) - before
                heads += taken
                at += taken
            else:
                taken = end + 4 - before
                heads += taken
                at += taken
                requests += 1
                self._begin(bytes(self._head[: end + 2]))
        return heads, requests

    def _begin(self, head: bytes) -> None:
        self._head.clear()
        length = _LENGTH.search(head)
        self._body_left = int(length.group(1)) if length else 0
        self._lost = _CODED.search(head) is not None


def _carry(near: socket.socket, far: socket.socket, sums: Sums) -> None:
    """From the client to the server, counted before it is passed on. A client that dies takes its connection along."""
    reader = Reader()
    buffer = bytearray(_BLOCK_BYTES)
    view = memoryview(buffer)
    with contextlib.suppress(OSError):
        while count := near.recv_into(buffer):
            sums.add(count, *reader.feed(view[:count]))
            far.sendall(view[:count])
    _end(near, far)


def _answer(far: socket.socket, near: socket.socket) -> None:
    buffer = bytearray(_BLOCK_BYTES)
    view = memoryview(buffer)
    with contextlib.suppress(OSError):
        while count := far.recv_into(buffer):
            near.sendall(view[:count])
    _end(near, far)


def _end(*both: socket.socket) -> None:
    for one in both:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, there: tuple[str, int], sums: Sums) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(there)
        except OSError:
            near.close()
            continue
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_carry, args=(near, far, sums), daemon=True).start()
        threading.Thread(target=_answer, args=(far, near), daemon=True).start()


def _serve(host: str, port: int) -> None:
    """Ends when whoever started it does."""
    sums = Sums()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        threading.Thread(target=_accept, args=(listener, (host, port), sums), daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        for _ in sys.stdin:
            print(sums.told(), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
