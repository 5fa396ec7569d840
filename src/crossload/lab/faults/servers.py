"""Servers that crash, go away for a while, or fall silent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from crossload.lab.faults.proof import FaultDidNotFire
from crossload.lab.lab import Lab, LabError
from crossload.lab.process import PROC, session_members


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
    back = threading.Event()
    trouble: list[Exception] = []

    def bring_back() -> None:
        try:
            start(lab, name)
        except Exception as error:  # noqa: BLE001  # raised in the caller's thread below
            trouble.append(error)
        back.set()

    timer = threading.Timer(down_seconds, bring_back)
    timer.start()
    try:
        yield back
    finally:
        timer.join()
    if trouble:
        raise trouble[0]


@contextmanager
def pause(lab: Lab, name: str, pause_seconds: float) -> Iterator[threading.Event]:
    """Stop a server without ending it: connections stay open, nothing answers. Yields an event: it goes on."""
    session = lab.pid(name)
    signal_all(session, signal.SIGSTOP)
    deadline = time.monotonic() + 2.0
    while any(_scheduling(pid) != "T" for pid in session_members(session)):
        if time.monotonic() > deadline:
            signal_all(session, signal.SIGCONT)
            raise FaultDidNotFire(f"{name} did not stop")
        time.sleep(0.01)
    going = threading.Event()

    def go_on() -> None:
        signal_all(session, signal.SIGCONT)
        going.set()

    timer = threading.Timer(pause_seconds, go_on)
    timer.start()
    try:
        yield going
    finally:
        timer.join()


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


def _scheduling(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"
