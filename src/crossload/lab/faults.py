"""Faults on a running lab, each a context manager that proves it fired: a fault that never happened proves nothing.

with crash(lab, "seaweedfs"): ...          killed on entry, started again on exit
with outage(lab, "fake-gcs", 20.0): ...    gone for 20 s, then back by itself, also while the block still runs
with pause(lab, "fake-gcs", 5.0): ...      alive and silent for 5 s
with abort(lab, "llm-b", percent=50): ...  503 on the road to a model        with slow(lab, "llm-b", delay_ms=300): ...
with small_disk(folder, 16 << 20) as disk: disk.fill()
argv = skewed(["python", "x.py"], hours=2)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossload.lab.front.config import MODEL_ROADS, runtime_key
from crossload.lab.lab import Lab, LabError
from crossload.lab.process import PROC, session_members

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_libc = ctypes.CDLL(None, use_errno=True)


class FaultDidNotFire(AssertionError):
    """The fault was set but did not happen: the test around it proved nothing."""


class FaultUnavailable(RuntimeError):
    """This machine cannot make the fault; the text says why. Tests skip with it."""


# -- servers ----------------------------------------------------------------------------------------------------


@contextmanager
def crash(lab: Lab, name: str) -> Iterator[None]:
    """Kill a server as a crash would; start it again, on the same ports and folder, when the block ends."""
    _kill(lab, name)
    try:
        yield
    finally:
        _start(lab, name)


@contextmanager
def outage(lab: Lab, name: str, down_seconds: float) -> Iterator[threading.Event]:
    """Take a server away for `down_seconds`; the block runs meanwhile. Yields an event that is set when it is back."""
    _kill(lab, name)
    back = threading.Event()
    trouble: list[Exception] = []

    def bring_back() -> None:
        try:
            _start(lab, name)
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
    _signal_all(session, signal.SIGSTOP)
    deadline = time.monotonic() + 2.0
    while any(_scheduling(pid) != "T" for pid in session_members(session)):
        if time.monotonic() > deadline:
            _signal_all(session, signal.SIGCONT)
            raise FaultDidNotFire(f"{name} did not stop")
        time.sleep(0.01)
    going = threading.Event()

    def go_on() -> None:
        _signal_all(session, signal.SIGCONT)
        going.set()

    timer = threading.Timer(pause_seconds, go_on)
    timer.start()
    try:
        yield going
    finally:
        timer.join()


def _kill(lab: Lab, name: str) -> None:
    session = lab.pid(name)
    lab.kill(name)
    if session_members(session):
        raise FaultDidNotFire(f"{name} still runs")
    for port in lab.ports(name).values():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise FaultDidNotFire(f"something still answers on port {port} of {name}")


def _start(lab: Lab, name: str) -> None:
    for server in lab.start(name):
        if server.name == name and server.state != "up":
            raise LabError(f"{name} did not come back: {server.hint}")


def _signal_all(session: int, number: signal.Signals) -> None:
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _scheduling(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"


# -- model traffic ----------------------------------------------------------------------------------------------


@contextmanager
def abort(lab: Lab, road: str, *, percent: int, status: int = 503) -> Iterator[None]:
    """Answer `percent` of the requests on the road to "llm-a" or "llm-b" (CROSSLOAD_LAB_LLM_*_FAULTY) with `status`."""
    settings = {"abort_percent": percent, "abort_status": status}
    with _road_fault(lab, road, settings, "aborts_injected"):
        yield


@contextmanager
def slow(lab: Lab, road: str, *, delay_ms: int, percent: int = 100) -> Iterator[None]:
    """Hold `percent` of the requests on the road to a model back for `delay_ms`."""
    settings = {"delay_percent": percent, "delay_ms": delay_ms}
    with _road_fault(lab, road, settings, "delays_injected"):
        yield


@contextmanager
def _road_fault(lab: Lab, road: str, settings: Mapping[str, int], counter: str) -> Iterator[None]:
    before = _injected(lab, road, counter)
    set_road(lab, road, settings)
    try:
        yield
    finally:
        set_road(lab, road, dict.fromkeys(settings))
    if _injected(lab, road, counter) == before:
        raise FaultDidNotFire(f"no request on the road to {road} met the fault")


def set_road(lab: Lab, road: str, settings: Mapping[str, int | None]) -> None:
    """Change fault settings of a road at once; None puts a setting back to no fault."""
    if road not in MODEL_ROADS:
        raise KeyError(road)
    values = {runtime_key(road, key): "" if value is None else value for key, value in settings.items()}
    _admin(lab, "POST", "/runtime_modify?" + urllib.parse.urlencode(values))


def _injected(lab: Lab, road: str, counter: str) -> int:
    name = f"http.{road.replace('-', '_')}.fault.{counter}"
    text = _admin(lab, "GET", "/stats?" + urllib.parse.urlencode({"filter": f"^{name}$"}))
    return int(text.partition(":")[2] or 0)


def _admin(lab: Lab, method: str, road: str) -> str:
    request = urllib.request.Request(lab.env()["CROSSLOAD_LAB_ENVOY_ADMIN"] + road, method=method)  # noqa: S310
    with _direct.open(request, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


# -- the machine ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own that can be filled to the last byte."""

    folder: Path

    def free_bytes(self) -> int:
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def fill(self, leave_bytes: int = 0) -> Path:
        """Use up the space but for `leave_bytes`; returns the file that holds it (delete it to make room again)."""
        ballast = self.folder / ".ballast"
        block = bytes(4096)
        with ballast.open("ab", buffering=0) as out:
            while self.free_bytes() > leave_bytes:
                try:
                    out.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
        if self.free_bytes() > leave_bytes + len(block):
            raise FaultDidNotFire(f"{self.free_bytes()} bytes are still free")
        return ballast


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A file system of `size_bytes` in memory on `folder`. Raises FaultUnavailable where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0755".encode()
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise FaultUnavailable(f"cannot mount a small disk: {os.strerror(ctypes.get_errno())}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazy: a process that still stands in the folder must not keep the mount for ever.
        _libc.umount2(os.fsencode(folder), 2)


def skewed(argv: Sequence[str], *, hours: float) -> list[str]:
    """`argv` run with its clock off by `hours`. Raises FaultUnavailable when faketime is not installed."""
    program = shutil.which("faketime")
    if program is None:
        raise FaultUnavailable("faketime is not installed (Debian package faketime)")
    return [program, "-f", f"{hours * 3600:+.0f}s", *argv]


def switch(lab: Lab, name: str, *, on: bool) -> str:
    """Turn a named fault on or off and leave it so: abort-a, abort-b, slow-a, slow-b, pause-SERVER, down-SERVER."""
    kind, _, what = name.partition("-")
    match kind, what:
        case "abort", "a" | "b":
            set_road(lab, f"llm-{what}", {"abort_percent": 50 if on else None})
            return f"half of the requests on the faulty road to llm-{what} {'get 503' if on else 'are answered again'}"
        case "slow", "a" | "b":
            set_road(lab, f"llm-{what}", {"delay_percent": 100 if on else None, "delay_ms": 1000 if on else None})
            return f"requests on the faulty road to llm-{what} {'wait 1 s' if on else 'do not wait any more'}"
        case "pause", server if server:
            _signal_all(lab.pid(server), signal.SIGSTOP if on else signal.SIGCONT)
            return f"{server} {'is silent' if on else 'goes on'}"
        case "down", server if server:
            if on:
                _kill(lab, server)
            else:
                _start(lab, server)
            return f"{server} is {'gone' if on else 'back'}"
        case _:
            raise KeyError(name)
