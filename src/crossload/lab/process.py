"""Facts about processes, read from /proc: who is alive, what it listens on, what it costs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A TCP socket that accepts connections."""

    address: str
    port: int

    @property
    def on_loopback(self) -> bool:
        parsed = ipaddress.ip_address(self.address)
        mapped = getattr(parsed, "ipv4_mapped", None)
        return (mapped or parsed).is_loopback

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command name may hold spaces and brackets; what follows its last ")" is split by single spaces.
    return text.rpartition(")")[2].split()


def _is_gone(fields: list[str]) -> bool:
    # The first thread of a process may be dead while others still hold its ports: only the last one frees them.
    return fields[0] in {"Z", "X"} and int(fields[17]) <= 1


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat: with the pid it names one process for ever, so a reused pid is never killed."""
    fields = _stat_fields(pid)
    if fields is None or _is_gone(fields):
        return None
    return int(fields[19])


def scheduling(pid: int) -> str | None:
    """The kernel's letter for what a process does (R, S, T, ...), None when there is none."""
    fields = _stat_fields(pid)
    return None if fields is None else fields[0]


def is_same_process(pid: int | None, ticks: int | None) -> bool:
    """True when `pid` still is the process that was started at `ticks`."""
    return pid is not None and ticks is not None and start_ticks(pid) == ticks


def session_members(session: int) -> list[int]:
    """Living pids whose session is `session`: a server and all its children (each server gets its own session)."""
    members: list[int] = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat_fields(int(entry.name))
        if fields is not None and not _is_gone(fields) and int(fields[3]) == session:
            members.append(int(entry.name))
    return members


def kill_session(session: int, ticks: int | None, *, wait_seconds: float = 5.0) -> bool:
    """SIGKILL a server and its children and wait until none is left. False when the leader's pid was reused."""
    leader = start_ticks(session)
    if leader is not None and ticks is not None and leader != ticks:
        return False
    deadline = time.monotonic() + wait_seconds
    while members := session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def parse_listeners(text: str) -> dict[str, Listener]:
    """Inode -> listener, from the text of /proc/net/tcp or tcp6. Sockets that do not listen are left out."""
    found: dict[str, Listener] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        found[fields[9]] = Listener(_address(address), int(port, 16))
    return found


def _address(hexadecimal: str) -> str:
    # The kernel prints each 32-bit word in the byte order of the machine.
    raw = b"".join(bytes.fromhex(hexadecimal[i : i + 8])[::-1] for i in range(0, len(hexadecimal), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, raw)


def all_listeners() -> dict[str, Listener]:
    """Inode -> listener for the whole machine (this network namespace)."""
    found: dict[str, Listener] = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found |= parse_listeners((PROC / "net" / table).read_text())
    return found


def listeners_of(pids: Iterable[int]) -> list[Listener]:
    """Sorted listeners held by these processes."""
    table = all_listeners()
    held: set[Listener] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in (PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:["):
                        listener = table.get(target[8:-1])
                        if listener is not None:
                            held.add(listener)
    return sorted(held)


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional memory of these processes in bytes (shared pages counted by share)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of their children that have ended, in seconds."""
    total = 0
    for pid in pids:
        fields = _stat_fields(pid)
        if fields is not None:
            total += sum(int(fields[i]) for i in (11, 12, 13, 14))
    return total / _TICKS_PER_SECOND
