"""A thin link to a server: so many megabits a second each way, and so much later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from crossload.lab.faults.proof import FaultDidNotFire
from crossload.lab.faults.stores import aws_config, forget_aws_config
from crossload.lab.lab import Lab, LabError
from crossload.lab.launch import callers_environment, last_lines
from crossload.lab.process import is_same_process
from crossload.lab.state import read_state
from crossload.lab.table import all_servers

# Servers that clients reach by a port of another one. Every other is reached by its first port.
_DOORS = {"fake-gcs": ("envoy", "gcs")}
_START_SECONDS_MAX = 20.0
# A link that let more through than this share over its rate was no link of that rate.
_OVER_RATE_MAX = 1.15
_JUDGED_SECONDS_MIN = 0.5


@dataclass(frozen=True, slots=True)
class Direction:
    """What crossed a link one way. `megabits` is the rate measured while it was full; None when it never was."""

    bytes: int
    held_seconds: float
    full_seconds: float
    megabits: float | None


@dataclass(frozen=True, slots=True)
class LinkReport:
    """`up` is from the client to the server. `unanswered` connections found nobody at the server's port."""

    up: Direction
    down: Direction
    connections: int
    unanswered: int

    def __str__(self) -> str:
        def way(name: str, one: Direction) -> str:
            rate = "never full" if one.megabits is None else f"{one.megabits:.1f} Mbit/s while full"
            return f"{name} {one.bytes} bytes, {rate}"

        return f"{way('up', self.up)}; {way('down', self.down)}; {self.connections} connections"


@dataclass(frozen=True, slots=True)
class ThinLink:
    """An address that leads to a server over a thin link."""

    lab: Lab
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def report(self) -> LinkReport:
        """What has crossed so far."""
        if self.process.stdin is None or self.process.stdout is None:
            raise LabError("the link's pipes are closed")
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return _report(self.process.stdout.readline())

    def aws_config(self) -> Path:
        """For "seaweedfs": a copy of cloud A's AWS configuration in which S3 is at the end of this link."""
        return aws_config(self.lab, self.url)


@contextmanager
def thin_link(
    lab: Lab,
    server: str,
    *,
    port_name: str | None = None,
    megabits: float | None = None,
    latency_ms: float = 0.0,
) -> Iterator[ThinLink]:
    """A link of `megabits` Mbit/s (10**6 bits, None: no limit) to a server, on the port clients use or another one.

    Both directions have the whole rate, and all connections share it. `latency_ms` is for one way: an answer takes
    twice as long. The server's own address stays as fast as it is.
    Raises ValueError when neither is given, KeyError for an unknown server or port, and FaultDidNotFire when nothing
    crossed the link, when a rate was asked for and nothing had to wait for it (send more, or ask for latency only), or
    when more crossed than the rate allows.
    """
    if megabits is None and latency_ms <= 0:
        raise ValueError("give megabits or latency_ms: else the link is not thin")
    argv = _argv(lab, server, port_name, megabits, latency_ms)
    (lab.home / "logs").mkdir(parents=True, exist_ok=True)
    with (lab.home / "logs" / f"link-{server}.log").open("ab") as log:
        process = _spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    port: int | None = None
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            words = " | ".join(last_lines(lab.home / "logs" / f"link-{server}.log"))
            raise LabError(f"the link did not start: {words}")
        port = int(json.loads(line)["port"])
        link = ThinLink(lab, port, process)
        yield link
        report = link.report()
    finally:
        if port is not None:
            forget_aws_config(lab, port)
        # The end of its input ends it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        process.kill()
        process.wait()
    _prove(report, server, megabits)


def _prove(report: LinkReport, server: str, megabits: float | None) -> None:
    ways = (report.up, report.down)
    if not any(way.bytes for way in ways):
        raise FaultDidNotFire(f"nothing crossed the thin link to {server}")
    if megabits is None:
        return
    if not any(way.held_seconds for way in ways):
        raise FaultDidNotFire(f"nothing had to wait on the link of {megabits} Mbit/s to {server}: {report}")
    for way in ways:
        if way.megabits and way.full_seconds > _JUDGED_SECONDS_MIN and way.megabits > megabits * _OVER_RATE_MAX:
            raise FaultDidNotFire(f"the link to {server} did not keep its rate of {megabits} Mbit/s: {report}")


# -- a link that stays ------------------------------------------------------------------------------------------


def open_link(lab: Lab, server: str, *, megabits: float, latency_ms: float) -> str:
    """Start a link that stays until `close_link` or the lab's end, to the port that clients use. Returns its URL."""
    state = read_state(lab.home)
    if not state.supervised:
        raise LabError(f"no lab runs in {lab.home}")
    known = _standing(lab, server)
    if known is not None:
        return f"http://127.0.0.1:{known['port']}"
    path = _path(lab, server)
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{state.supervisor_pid}:{state.supervisor_ticks}"
    argv = [*_argv(lab, server, None, megabits, latency_ms), "--while-runs", owner]
    with path.open("wb") as out:
        process = _spawn(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    deadline = time.monotonic() + _START_SECONDS_MAX
    while (found := _standing(lab, server)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the link did not start: {path.read_text()[-500:].strip()}")
        time.sleep(0.02)
    # Ours to start, not ours to wait for; without this, Python warns about a running child.
    process.returncode = 0
    return f"http://127.0.0.1:{found['port']}"


def close_link(lab: Lab, server: str) -> LinkReport | None:
    """End a link that stands; what crossed it, or None when there was none."""
    found = _standing(lab, server)
    if found is None:
        return None
    os.kill(found["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 5.0
    while is_same_process(found["pid"], found["ticks"]):
        if time.monotonic() > deadline:
            os.kill(found["pid"], signal.SIGKILL)
            raise LabError(f"the link to {server} did not end by itself")
        time.sleep(0.02)
    forget_aws_config(lab, found["port"])
    with contextlib.suppress(ChildProcessError):
        os.waitpid(found["pid"], os.WNOHANG)
    return _report(_path(lab, server).read_text().splitlines()[-1])


def _path(lab: Lab, server: str) -> Path:
    return lab.home / "links" / server


def _standing(lab: Lab, server: str) -> dict[str, int] | None:
    try:
        found: dict[str, int] = json.loads(_path(lab, server).read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return found if is_same_process(found.get("pid"), found.get("ticks")) else None


# -- the program ------------------------------------------------------------------------------------------------


def _argv(lab: Lab, server: str, port_name: str | None, megabits: float | None, latency_ms: float) -> list[str]:
    door = (server, port_name) if port_name else _DOORS.get(server, (server, all_servers()[server].port_names[0]))
    argv = ["--to", str(lab.port(*door)), "--latency-ms", str(latency_ms)]
    if megabits is not None:
        argv += ["--megabits", str(megabits)]
    return [sys.executable, "-m", "crossload.lab.programs.link", *argv]


def _spawn(argv: Sequence[str], *, stdin: int, stdout: int | IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv, stdin=stdin, stdout=stdout, stderr=stderr, text=True, start_new_session=True, env=callers_environment()
    )


def _report(line: str) -> LinkReport:
    raw: dict[str, Any] = json.loads(line)
    return LinkReport(Direction(**raw["up"]), Direction(**raw["down"]), raw["connections"], raw["unanswered"])
