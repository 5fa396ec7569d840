"""A relay on this machine: an agent in front of a folder, a pipe that counts and cuts, a store at this end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.patch import apply_patch
from crossload.estate.place import Place
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Store
from crossload.providers.local.store import open_store as open_folder
from crossload.providers.relay.agent import Agent, AgentOptions
from crossload.providers.relay.answering import Limits
from crossload.providers.relay.store import RelayStore, open_store

TOKEN = "0123456789abcdef-for-tests"
MIB = 2**20
PLAIN = ObjectMeta(content_type="application/octet-stream")


def folder(root: Path) -> Store:
    root.mkdir(exist_ok=True)
    connection = {"root": str(root)}
    return open_folder(Settings(Place("far", "local", "here", "DE", connection), connection, {}))


def apply(base: tuple[Any, int], patch: tuple[Any, int], out: Callable[[bytes], object], **known: Any) -> str:
    return apply_patch(Content(*base), Content(*patch), out, **known)


def agent(store: Store, *, buckets: tuple[str, ...] = ("*",), limits: Limits | None = None, **more: Any) -> Agent:
    return Agent(store, AgentOptions(TOKEN, buckets, limits=limits or Limits(), **more), apply)


def relay(url: str, *, token: str = TOKEN, compression: str = "auto") -> RelayStore:
    connection = {"url": url, "token": "env:RELAY_TOKEN", "compression": compression}
    return open_store(Settings(Place("b", "relay", "there", "DE", connection), connection, {"RELAY_TOKEN": token}))


class Pipe:
    """A port of this machine that leads to another; `up_bytes` and `down_bytes` travelled. With `cut_up` or
    `cut_down` the connection ends after so many bytes of that direction, once."""

    def __init__(self, url: str) -> None:
        self._there = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.up_bytes = self.down_bytes = 0
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self._mutex = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket, list[threading.Thread]]] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is left open, nor running."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        with self._mutex:
            pairs = list(self._pairs)
        for near, far, threads in pairs:
            _hang_up(near, far)
            for thread in threads:
                thread.join(5)
            near.close()
            far.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._there)
                threads = [
                    threading.Thread(target=self._carry, args=(*ends, up), daemon=True)
                    for ends, up in (((near, far), True), ((far, near), False))
                ]
                with self._mutex:
                    self._pairs.append((near, far, threads))
                for thread in threads:
                    thread.start()

    def _carry(self, one: socket.socket, other: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while block := one.recv(64 * 1024):
                if self._count(len(block), up):
                    break
                other.sendall(block)
        _hang_up(one, other)

    def _count(self, size: int, up: bool) -> bool:
        with self._mutex:
            if up:
                self.up_bytes += size
            else:
                self.down_bytes += size
            limit, seen = (self.cut_up, self.up_bytes) if up else (self.cut_down, self.down_bytes)
            if limit is None or seen < limit:
                return False
            self.cut_up = self.cut_down = None
            return True


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def piped(url: str) -> Iterator[Pipe]:
    pipe = Pipe(url)
    try:
        yield pipe
    finally:
        pipe.close()
