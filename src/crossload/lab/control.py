"""The line to a running supervisor: one JSON line in, one JSON line out, over a unix socket in the home."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET_NAME = "control.sock"


@contextmanager
def _short_path(home: Path) -> Iterator[str]:
    # A unix socket's path may hold 107 bytes; homes may be deeper. The folder's descriptor gives a short road to it.
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def listen(home: Path) -> socket.socket:
    """The supervisor's end. Only the owner of the home may connect."""
    (home / SOCKET_NAME).unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_path(home) as path:
        before = os.umask(0o177)
        try:
            door.bind(path)
        finally:
            os.umask(before)
    door.listen(16)
    door.setblocking(False)
    return door


def answer(door: socket.socket, handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Serve one caller. A caller that is slow or gone costs at most a second and never stops the supervisor."""
    try:
        line, _ = door.accept()
    except OSError:
        return
    with line:
        line.settimeout(1.0)
        try:
            request = json.loads(_read_line(line))
            reply = handle(request)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        try:
            line.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            return


def ask(home: Path, request: dict[str, Any], *, patience_seconds: float = 5.0) -> dict[str, Any]:
    """Send one command to the supervisor of `home`. Raises OSError when none listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(patience_seconds)
        with _short_path(home) as path:
            line.connect(path)
        line.sendall(json.dumps(request).encode() + b"\n")
        reply: dict[str, Any] = json.loads(_read_line(line))
        return reply


def _read_line(line: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = line.recv(65536)
        if not part:
            break
        data += part
        if len(data) > 1_000_000:
            raise ValueError("the line is too long")
    return bytes(data)
