"""Servers that crash, go away for a while, or fall silent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crossload.lab.faults.proof import FaultDidNotFire
from crossload.lab.lab import Lab, LabError
from crossload.lab.process import scheduling, session_members


@contextmanager
def crash(lab: Lab, name: str) -> Iterator[None]:
    """Kill a server as a crash would; start it again, on the same ports and folder, when the block ends."""
    kill(lab, name)
    try:
        yield
    finally:
        start(lab, name)


@contextmanager
def outage(lab: Lab, name: str, down_seconds: float) -> Iterator[threading.Event]:
    """Take a server away for `down_seconds`; the block runs meanwhile. Yields an event that is set when it is back."""
    kill(lab, name)
    with _ended_after(down_seconds, lambda: start(lab, name)) as back:
        yield back


@contextmanager
def pause(lab: Lab, name: str, pause_seconds: float) -> Iterator[threading.Event]:
    """Stop a server without ending it: connections stay open, nothing answers. Yields an event: it goes on."""
    session = lab.pid(name)
    signal_all(session, signal.SIGSTOP)
    deadline = time.monotonic() + 2.0
    while any(scheduling(pid) not in {"T", None} for pid in session_members(session)):
        if time.monotonic() > deadline:
            signal_all(session, signal.SIGCONT)
            raise FaultDidNotFire(f"{name} did not stop")
        time.sleep(0.01)
    with _ended_after(pause_seconds, lambda: signal_all(session, signal.SIGCONT)) as going:
        yield going


@contextmanager
def _ended_after(seconds: float, end: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `end` when `seconds` are over; the block runs meanwhile. Yields an event that is set when it has run."""
    ended = threading.Event()
    trouble: list[Exception] = []

    def run() -> None:
        try:
            end()
        except Exception as error:  # noqa: BLE001  # raised in the caller's thread below
            trouble.append(error)
        ended.set()

    timer = threading.Timer(seconds, run)
    timer.start()
    try:
        yield ended
    finally:
        timer.join()
    if trouble:
        raise trouble[0]


def kill(lab: Lab, name: str) -> None:
    """SIGKILL a server and see that nothing of it is left."""
    session = lab.pid(name)
    lab.kill(name)
    if session_members(session):
        raise FaultDidNotFire(f"{name} still runs")
    for port in lab.ports(name).values():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise FaultDidNotFire(f"something still answers on port {port} of {name}")


def start(lab: Lab, name: str) -> None:
    """Start a killed server and what it needs. Raises LabError when it does not come back."""
    for server in lab.start(name):
        if server.name == name and server.state != "up":
            raise LabError(f"{name} did not come back: {server.hint}")


def signal_all(session: int, number: signal.Signals) -> None:
    """Signal a server and its children."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
