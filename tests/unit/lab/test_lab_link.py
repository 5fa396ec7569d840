"""The thin link as a program, in front of a server of the test: rate, delay, and the ways a connection ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossload.lab.process import is_same_process, start_ticks


class Server:
    """Answers each connection with `serve`; keeps what it read."""

    def __init__(self, serve: Callable[[Server, socket.socket], None]) -> None:
        self._serve = serve
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.endings: list[str] = []
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client:
            try:
                self._serve(self, client)
                self.endings.append("orderly")
            except OSError as error:
                self.endings.append(type(error).__name__)
        self.ended.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


def echo(_server: Server, client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data)


def read_all_then_answer(_server: Server, client: socket.socket) -> None:
    size = 0
    while data := client.recv(1 << 20):
        size += len(data)
    client.sendall(b"%d" % size)


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(serve: Callable[[Server, socket.socket], None] = read_all_then_answer) -> Server:
        made.append(Server(serve))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Link:
    def __init__(self, *options: str) -> None:
        argv = [sys.executable, "-m", "crossload.lab.programs.link", *options]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self._line()
        self.port: int = self.first["port"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return self._line()


@pytest.fixture
def link() -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(*options: object) -> Link:
        made.append(Link(*(str(option) for option in options)))
        return made[-1]

    yield make
    for one in made:
        one.process.communicate(timeout=10)
        assert one.process.returncode == 0


def _send(link: Link, data: bytes) -> bytes:
    with link.connect() as end:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)
        return end.recv(64)


def test_the_rate_is_kept_and_connections_share_it(server: Callable[..., Server], link: Callable[..., Link]) -> None:
    megabits, each = 16, 1_000_000
    thin = link("--to", server().port, "--megabits", megabits)
    answers: list[bytes] = []
    senders = [threading.Thread(target=lambda: answers.append(_send(thin, bytes(each)))) for _ in range(3)]
    begun = time.monotonic()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    seconds = time.monotonic() - begun
    assert answers == [b"1000000"] * 3
    assert 3 * each * 8 / seconds / 1e6 == pytest.approx(megabits, rel=0.15)
    report = thin.report()
    assert report["up"]["bytes"] == 3 * each
    assert report["up"]["megabits"] == pytest.approx(megabits, rel=0.15)
    assert report["up"]["held_seconds"] > 0
    assert (report["down"]["bytes"], report["down"]["held_seconds"]) == (21, 0)
    assert report["connections"] == 3


def test_both_directions_have_the_whole_rate(server: Callable[..., Server], link: Callable[..., Link]) -> None:
    thin = link("--to", server(echo).port, "--megabits", 16)
    data = os.urandom(1_600_000)
    came = bytearray()
    begun = time.monotonic()
    with thin.connect() as end:
        sender = threading.Thread(target=lambda: (end.sendall(data), end.shutdown(socket.SHUT_WR)))
        sender.start()
        while piece := end.recv(65536):
            came += piece
        sender.join()
    seconds = time.monotonic() - begun
    assert bytes(came) == data, "nothing is lost, doubled or out of order"
    assert seconds == pytest.approx(0.8, rel=0.2), "there and back at once, not one after the other"


def test_every_round_trip_is_late_and_the_connection_is_too(
    server: Callable[..., Server], link: Callable[..., Link]
) -> None:
    thin = link("--to", server(echo).port, "--latency-ms", 60)
    with thin.connect() as end:
        waits: list[float] = []
        for _ in range(4):
            begun = time.monotonic()
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            waits.append(time.monotonic() - begun)
    assert waits[0] >= 0.24
    assert min(waits[1:]) >= 0.12
    assert min(waits[1:]) < 0.16
    # Late is not slow: a hundred messages that need no answer take one delay, not a hundred.
    with thin.connect() as end:
        begun = time.monotonic()
        for _ in range(100):
            end.sendall(b"y" * 100)
        got = 0
        while got < 10_000:
            got += len(end.recv(65536))
        assert time.monotonic() - begun < 1.0


def test_a_receiver_that_does_not_read_holds_its_sender_up(
    server: Callable[..., Server], link: Callable[..., Link]
) -> None:
    """Else the link would take everything into memory."""
    go = threading.Event()

    def sleeper(_server: Server, client: socket.socket) -> None:
        go.wait(30)
        read_all_then_answer(_server, client)

    thin = link("--to", server(sleeper).port, "--latency-ms", 1)
    with thin.connect() as end:
        end.settimeout(1.0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += end.send(bytes(65536))
        assert sent < 24 << 20
        go.set()
        end.settimeout(30)
        end.shutdown(socket.SHUT_WR)
        assert end.recv(64) == b"%d" % sent


def test_a_broken_connection_breaks_on_the_other_side(server: Callable[..., Server], link: Callable[..., Link]) -> None:
    behind = server(lambda _server, client: [None for _ in iter(lambda: client.recv(65536), b"")] and None)
    thin = link("--to", behind.port, "--latency-ms", 1)
    end = thin.connect()
    end.sendall(b"half of a requ")
    time.sleep(0.2)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    assert behind.ended.wait(5)


def test_a_server_that_is_gone_is_no_answer(server: Callable[..., Server], link: Callable[..., Link]) -> None:
    behind = server()
    thin = link("--to", behind.port, "--latency-ms", 1)
    assert _send(thin, b"12") == b"2"
    behind.close()
    with thin.connect() as end:
        assert end.recv(1) == b""
    assert thin.report()["unanswered"] == 1


def test_it_ends_with_its_owner(server: Callable[..., Server], link: Callable[..., Link]) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    behind = server(echo)
    name = f"{owner.pid}:{start_ticks(owner.pid)}"
    tied = link("--to", behind.port, "--latency-ms", 1, "--while-runs", name)
    told = link("--to", behind.port, "--latency-ms", 1)
    with tied.connect() as end:
        end.sendall(b"x")
        assert end.recv(1) == b"x"
        assert is_same_process(tied.first["pid"], tied.first["ticks"])
        owner.communicate()
        assert tied.process.wait(10) == 0
        assert end.recv(1) == b"", "a connection does not outlive its link"
    told.process.send_signal(signal.SIGTERM)
    assert told.process.wait(10) == 0
    assert told.process.stdout is not None
    assert json.loads(told.process.stdout.read())["connections"] == 0
