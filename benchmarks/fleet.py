"""What a killed worker costs, and what several processes bring, on one machine with real folders and a real server.

    python benchmarks/fleet.py [--objects 5000] [--size-bytes 16384]

Writes benchmarks/results/fleet.json and prints the table. Stores are folders of this disk, with every write flushed to
it. CPU is that of all processes of the move together, the server's left out; a process costs about a second of it to
start. Every write at the target is noted by its key, so that an object that was sent twice is counted as redone."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "journeys"))

from fleet_parts import BUCKET, fleet_server, migration_file, place, same, two_folders
from rows import Row, row, write

from crossload import wiring
from crossload.engines.mover import fleets
from crossload.engines.mover.bucket import PassReport
from crossload.engines.mover.carrying import Ends
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.shards import move_bucket_by
from crossload.ledger.journal import Journal
from crossload.ports.fleet import Limits

HERE = Path(__file__).resolve()
SHARD_OBJECTS = 100
THREADS = 6  # of all processes together


class Noting:
    """A store that notes every key it is asked to write."""

    def __init__(self, inner: Any, log: Path) -> None:
        self._inner = inner
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, bucket: str, key: str, *arguments: Any, **more: Any) -> Any:
        os.write(self._log, f"{key}\n".encode())
        return self._inner.write(bucket, key, *arguments, **more)


@dataclass(frozen=True, slots=True)
class NotingAt:
    """Opens the target of a scene, noting."""

    at: Path

    def __call__(self, say: Callable[[str], None]) -> Any:
        return Noting(wiring.StoreAt(place(self.at, "there"))(say), self.at / "writes")


def redone(at: Path) -> int:
    keys = Counter((at / "writes").read_text().splitlines())
    return sum(count - 1 for key, count in keys.items() if not key.startswith(".spool/"))


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def checked(at: Path, report: PassReport, objects: int) -> None:
    if report.copied + report.recognised != objects or report.failures or not same(at):
        raise SystemExit("the target is not the source")


def by_processes(at: Path, objects: int, size_bytes: int, processes: int, *, kill: bool) -> tuple[float, float, int]:
    """(wall, CPU, objects redone)."""
    two_folders(at, objects, size_bytes)
    pids: list[int] = []
    moved = 0

    def on_moved(count: int, _: int) -> None:
        nonlocal moved
        moved += count
        if kill and moved >= objects // 3 and len(pids) == processes:
            os.kill(pids[1], signal.SIGKILL)

    began, before = time.monotonic(), cpu()
    with Journal(at / "journal.db") as journal:
        report = move_bucket_by(
            processes, wiring.StoreAt(place(at, "here")), BUCKET, NotingAt(at), BUCKET, journal,
            CopyOptions(workers=THREADS // processes), Watcher(moved=on_moved), objects_max=SHARD_OBJECTS,
            started=pids.append,
        )  # fmt: skip
    seconds, used = time.monotonic() - began, cpu() - before
    checked(at, report, objects)
    if kill and len(pids) == processes:
        raise SystemExit("nobody was killed")
    return seconds, used, redone(at)


def serve(path: Path) -> None:
    """A worker of the fleet, in a process of its own."""
    migration, _ = wiring.read_file(path)
    assert migration is not None
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stores = {"here": wiring.store_at(migration, "here"), "there": NotingAt(path.parent)}
    fleets.serve_fleet(
        wiring.open_fleet(migration, "there"), lambda name: stores[name](lambda _: None),
        CopyOptions(workers=THREADS // 3), at_once=1, stop=stop,
    )  # fmt: skip


def by_fleet(at: Path, objects: int, size_bytes: int) -> tuple[float, float, int]:
    """Three workers, one of them killed: (wall of the move, CPU of all but the server, objects redone)."""
    two_folders(at, objects, size_bytes)
    with fleet_server(at) as address:
        migration = migration_file(at, address)
        before = cpu()
        workers = [subprocess.Popen([sys.executable, HERE, "--serve", at / "migration.yaml"]) for _ in range(3)]
        moved = 0

        def on_moved(count: int, _: int) -> None:
            nonlocal moved
            moved += count
            if moved >= objects // 3:
                workers[1].kill()

        time.sleep(5)  # they are up
        began = time.monotonic()
        here, there = wiring.StoreAt(place(at, "here"))(lambda _: None), NotingAt(at)(lambda _: None)
        move = fleets.FleetMove(
            wiring.open_fleet(migration, "there"), Ends(here, BUCKET, there, BUCKET), limits=Limits(silent_seconds=3),
            objects_max=SHARD_OBJECTS, poll_seconds=0.3, spool_folder=".spool",
        )  # fmt: skip
        with Journal(at / "journal.db") as journal:
            report = fleets.move_bucket_by_fleet(move, journal, CopyOptions(workers=2), Watcher(moved=on_moved))
        seconds = time.monotonic() - began
        for one in workers:
            one.terminate()
        codes = [one.wait(30) for one in workers]
        if codes[1] != -signal.SIGKILL:
            raise SystemExit("nobody was killed")
        used = cpu() - before
    checked(at, report, objects)
    return seconds, used, redone(at)


def measured(objects: int, size_bytes: int) -> list[Row]:
    rows: list[Row] = []

    def fresh(name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"fleet-{name}-"))

    def over(at: Path) -> None:
        shutil.rmtree(at, ignore_errors=True)

    wall: dict[int, float] = {}
    used: dict[int, float] = {}
    for processes in (1, 2, 3):
        at = fresh(str(processes))
        wall[processes], used[processes], _ = by_processes(at, objects, size_bytes, processes, kill=False)
        over(at)
    what = f"{objects} objects of {size_bytes // 1024} KiB"
    rows += [row(f"{what}, 1 process: wall", wall[1], "s"), row(f"{what}, 1 process: CPU", used[1], "s")]
    for processes in (2, 3):
        rows += [
            row(f"{what}, {processes} processes: wall", wall[processes], "s", "one process", wall[1]),
            row(f"{what}, {processes} processes: CPU", used[processes], "s", "one process", used[1]),
        ]
    at = fresh("killed")
    seconds, cost, again = by_processes(at, objects, size_bytes, 3, kill=True)
    over(at)
    peer = "same, nobody killed"
    rows += [
        row("one of three killed, leases: redone", again, "objects", "a shard", SHARD_OBJECTS, SHARD_OBJECTS),
        row("one of three killed, leases: wall", seconds, "s", peer, wall[3]),
        row("one of three killed, leases: CPU", cost, "s", peer, used[3]),
    ]
    at = fresh("server")
    seconds, cost, again = by_fleet(at, objects, size_bytes)
    over(at)
    rows += [
        row("one of three killed, Temporal: redone", again, "objects", "a shard", SHARD_OBJECTS, SHARD_OBJECTS),
        row("one of three killed, Temporal: wall", seconds, "s", "leases, killed too", rows[-2].value),
        row("one of three killed, Temporal: CPU", cost, "s", "leases, killed too", rows[-1].value),
    ]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--size-bytes", type=int, default=16384)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return 0
    rows = measured(asked.objects, asked.size_bytes)
    return write("fleet", rows)


if __name__ == "__main__":
    import fleet  # so that what is pickled is of a module that other processes can import

    sys.exit(fleet.main())
