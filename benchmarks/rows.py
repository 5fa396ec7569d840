"""What every benchmark writes: rows, a table, and a file of JSON."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is value / peer_value, or the other way round where `bar` asks for "times as fast". `bar` and `holds`
    are None where a number is for information only; a value of None is unknown."""

    measure: str
    value: float | None
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    bar: str | None = None
    holds: bool | None = None


def least(measure: str, value: float, unit: str, peer: str, peer_value: float, bar: float) -> Row:
    """More is better: value / peer_value must be at least `bar`."""
    ratio = value / peer_value
    return Row(measure, _round(value), unit, peer, _round(peer_value), round(ratio, 3), f">= {bar}x", ratio >= bar)


def most(measure: str, value: float, unit: str, peer: str, peer_value: float, bar: float) -> Row:
    """Less is better: value / peer_value must be at most `bar`."""
    ratio = value / peer_value
    return Row(measure, _round(value), unit, peer, _round(peer_value), round(ratio, 3), f"<= {bar}x", ratio <= bar)


def at_most(measure: str, value: float, unit: str, bar: float, peer: str = "", peer_value: float | None = None) -> Row:
    return Row(
        measure, _round(value), unit, peer, None if peer_value is None else _round(peer_value),
        round(value / peer_value, 3) if peer_value else None, f"<= {bar:g} {unit}", value <= bar,
    )  # fmt: skip


def told(measure: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> Row:
    """For information."""
    shown = None if peer_value is None else _round(peer_value)
    return Row(measure, _round(value), unit, peer, shown, round(value / peer_value, 3) if peer_value else None)


def row(
    measure: str, value: float, unit: str, peer: str = "", peer_value: float | None = None, most: float | None = None
) -> Row:
    """At most `most`, where that is given; else for information."""
    if most is None:
        return told(measure, value, unit, peer, peer_value)
    return at_most(measure, value, unit, most, peer, peer_value)


def times_as_good(measure: str, value: float, unit: str, peer: str, peer_value: float | None, bar: float) -> Row:
    """Less is better, and `ratio` says how many times better than the peer: at least `bar`, 0 where there is none."""
    ratio = None if peer_value is None else peer_value / value
    return Row(
        measure, _round(value), unit, peer, None if peer_value is None else _round(peer_value),
        None if ratio is None else round(ratio, 2), f">= {bar:g}x" if bar else None,
        ratio >= bar if bar and ratio is not None else None,
    )  # fmt: skip


def _round(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command as a whole process, start-up included."""

    wall_seconds: float
    cpu_seconds: float
    rss_mib: float


def timed(command: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None) -> Run:
    """Raises CalledProcessError when it fails. CPU and memory are the process's own, from wait4(2)."""
    # A child's peak memory begins with that of the process it was forked from: so a small one stands between.
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(log or os.devnull), *command]
    told = subprocess.run(launcher, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    status, wall, cpu, rss_kib = json.loads(told)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return Run(wall, cpu, rss_kib / 1024)


_LAUNCHER = """
import json, os, sys, time
began = time.monotonic()
pid = os.fork()
if pid == 0:
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - began
print(json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def cpu_of(pid: int) -> float:
    """CPU seconds of a running process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median(runs: Sequence[Run]) -> Run:
    return Run(
        statistics.median(run.wall_seconds for run in runs), statistics.median(run.cpu_seconds for run in runs),
        max(run.rss_mib for run in runs),
    )  # fmt: skip


def write(name: str, rows: Sequence[Row]) -> int:
    """benchmarks/results/NAME.json, and the same as a table on stdout. 1 when a bar does not hold, for the shell."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    header = ("measure", "value", "unit", "peer", "peer value", "ratio", "bar", "holds")
    lines = [header, *(tuple("" if v is None else str(v) for v in asdict(row).values()) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
    return 0 if all(row.holds is not False for row in rows) else 1


def unlimited_files() -> None:
    """As many open files as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
