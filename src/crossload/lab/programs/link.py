"""A thin link as a program: a TCP relay on 127.0.0.1 that lets so many bytes a second pass each way, and each one late.

    python -m crossload.lab.programs.link --to PORT [--megabits N] [--latency-ms M] [--while-runs PID:TICKS]

Each way is one line that all connections share. A byte leaves when the line is free and arrives `latency-ms` later; a
sender that is further ahead than a router's buffer is made to wait, as TCP would make it. A new connection costs one
round trip before its first byte passes. Not modelled: loss, and TCP's slow start.

It prints its port as JSON, then a report for each line "report" on standard input, and a last one when it is told to
end: by TERM, or by the end of its input, or, with `--while-runs`, when that process has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

from crossload.lab.process import is_same_process, start_ticks

_BUFFER_SECONDS = 0.05
_PIECE_SECONDS = 0.01
_PIECE_BYTES_MIN, _PIECE_BYTES_MAX = 1460, 65536
_WAITING_BYTES_MIN = 1 << 20
# Larger ones would take megabytes off a sender before the first byte is on the line.
_SOCKET_BYTES = 128 * 1024


@dataclass(slots=True)
class _Piece:
    due: float
    data: bytes
    queued: bool


class Line:
    """One direction: when may a piece go, and what became of the rate."""

    def __init__(self, bytes_per_second: float | None, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        rate = bytes_per_second or float("inf")
        self.piece_bytes = int(min(_PIECE_BYTES_MAX, max(_PIECE_BYTES_MIN, rate * _PIECE_SECONDS)))
        ahead = 0.0 if bytes_per_second is None else 2 * rate * (latency_seconds + _BUFFER_SECONDS)
        self.waiting_bytes_max = int(max(_WAITING_BYTES_MIN, ahead))
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._last_at: float | None = None
        self._bytes = 0
        self._held_seconds = 0.0
        self._full_bytes = 0
        self._full_seconds = 0.0

    async def carry(self, data: bytes) -> _Piece:
        """Put a piece on the line, when there is room; it knows when it will be at the other end."""
        clock = asyncio.get_running_loop().time
        came = clock()
        async with self._turn:
            ahead = self._free_at - _BUFFER_SECONDS - clock()
            if ahead > 0:
                self._held_seconds += ahead
                await asyncio.sleep(ahead)
            queued = self._free_at >= came
            self._free_at = max(came, self._free_at) + len(data) * self._seconds_per_byte
            return _Piece(self._free_at + self.latency_seconds, data, queued)

    def arrived(self, piece: _Piece) -> None:
        """Count a piece as it is handed over. The rate is taken only while pieces follow each other without a gap."""
        now = asyncio.get_running_loop().time()
        self._bytes += len(piece.data)
        if piece.queued and self._last_at is not None:
            self._full_bytes += len(piece.data)
            self._full_seconds += now - self._last_at
        self._last_at = now

    def report(self) -> dict[str, Any]:
        full = self._full_seconds
        return {
            "bytes": self._bytes,
            "held_seconds": round(self._held_seconds, 3),
            "full_seconds": round(full, 3),
            "megabits": round(self._full_bytes * 8 / full / 1e6, 3) if full > 0 else None,
        }


class _Underway:
    """Pieces between the two ends of one connection. `put` waits while the receiver lets too many bytes lie."""

    def __init__(self, bytes_max: int) -> None:
        self._pieces: deque[_Piece] = deque()
        self._bytes_left = bytes_max
        self._changed = asyncio.Condition()

    async def put(self, piece: _Piece) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes_left > 0)
            self._bytes_left -= len(piece.data)
            self._pieces.append(piece)
            self._changed.notify_all()

    async def get(self) -> _Piece:
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._pieces))
            piece = self._pieces.popleft()
            self._bytes_left += len(piece.data)
            self._changed.notify_all()
            return piece


class Link:
    """Relays every connection to `port` over two lines. `up` is from the client to the server."""

    def __init__(self, port: int, megabits: float | None, latency_seconds: float) -> None:
        bytes_per_second = None if megabits is None else megabits * 1e6 / 8
        self._port = port
        self._up = Line(bytes_per_second, latency_seconds)
        self._down = Line(bytes_per_second, latency_seconds)
        self._connections = 0
        self._unanswered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self) -> dict[str, Any]:
        counts = {"connections": self._connections, "unanswered": self._unanswered}
        return {"up": self._up.report(), "down": self._down.report(), **counts}

    async def serve(self, stop: asyncio.Event) -> None:
        """Accept until `stop`; then every connection is cut."""
        door = _socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", 0))
        door.listen(256)
        pid = os.getpid()
        _say({"port": door.getsockname()[1], "pid": pid, "ticks": start_ticks(pid)})
        accepting = asyncio.create_task(self._accept(door))
        await stop.wait()
        tasks = [accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        door.close()

    async def _accept(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(door)
            self._connections += 1
            task = loop.create_task(self._relay(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, client: socket.socket) -> None:
        with contextlib.closing(client), contextlib.closing(_socket()) as server:
            for end in (client, server):
                end.setblocking(False)
                # Otherwise the kernel adds waits of its own to small messages.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.sleep(2 * self._up.latency_seconds)
            try:
                await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self._port))
            except OSError:
                self._unanswered += 1
                return
            with contextlib.suppress(OSError):
                await _both(_one_way(client, server, self._up), _one_way(server, client, self._down))


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Before listen and connect: an accepted connection has its door's sizes.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    made.setblocking(False)
    return made


async def _both(*ways: Any) -> None:
    """Run to the end of all, or to the first error: a connection that broke on one side is cut on the other."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one_way(sender: socket.socket, receiver: socket.socket, line: Line) -> None:
    underway = _Underway(line.waiting_bytes_max)
    await _both(_take(sender, line, underway), _give(receiver, line, underway))


async def _take(sender: socket.socket, line: Line, underway: _Underway) -> None:
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(sender, line.piece_bytes)
        await underway.put(await line.carry(data))
        if not data:
            return


async def _give(receiver: socket.socket, line: Line, underway: _Underway) -> None:
    loop = asyncio.get_running_loop()
    while True:
        piece = await underway.get()
        early = piece.due - loop.time()
        if early > 0:
            await asyncio.sleep(early)
        if not piece.data:
            receiver.shutdown(socket.SHUT_WR)
            return
        line.arrived(piece)
        await loop.sock_sendall(receiver, piece.data)


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def _run(arguments: argparse.Namespace) -> None:
    link = Link(arguments.to, arguments.megabits, arguments.latency_ms / 1000)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    watch = _watch_process(arguments.while_runs, stop) if arguments.while_runs else _listen(link, stop)
    watching = asyncio.create_task(watch)
    await link.serve(stop)
    watching.cancel()
    with contextlib.suppress(BrokenPipeError):
        _say(link.report())


async def _watch_process(name: str, stop: asyncio.Event) -> None:
    pid, _, ticks = name.partition(":")
    while is_same_process(int(pid), int(ticks)):
        await asyncio.sleep(0.5)
    stop.set()


async def _listen(link: Link, stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        _say(link.report())
    stop.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--megabits", type=float, default=None)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--while-runs", default=None)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
