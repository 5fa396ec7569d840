"""What the tests of a move by many share: a folder of objects, the migration file over it, a server, and workers."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crossload import wiring
from crossload.engines.mover.carrying import Ends
from crossload.estate.migration import Migration
from crossload.estate.place import Place
from crossload.ports.errors import AccessDenied, CrossloadError
from crossload.ports.fleet import Fleet
from crossload.ports.provider import Settings
from crossload.ports.store import Store

BUCKET = "docs"
HERE = Path(__file__).resolve().parent
FILE = """\
apiVersion: crossload/v1
kind: Migration
metadata: {{name: desk, owner: support}}
goals:
  metrics:
    - {{name: latency, measure: latency_p95, direction: lower, limit: 2.5, unit: s}}
    - {{name: errors, measure: error_rate, direction: lower, limit: 0.01, unit: ratio}}
    - {{name: answers, measure: answer_agreement, direction: higher, limit: 0.9, unit: ratio}}
sources:
  - {{id: here, provider: local, region: a, connection: {{root: {at}/here}}}}
targets:
  regions: {{min: 1}}
  allow:
    - id: there
      provider: local
      region: b
      connection: {{root: {at}/there}}
      services:
        fleet: {{provider: temporal, connection: {{address: "{address}"}}}}
data: {{workers: 2}}
"""


def two_folders(at: Path, objects: int, size_bytes: int = 1000, large: int = 0) -> None:
    """Source with so many objects (the first `large` of them 1 MiB), and an empty target."""
    dice = random.Random(7)
    for side in ("here", "there"):
        (at / side / BUCKET).mkdir(parents=True)
    for number in range(objects):
        folder = at / "here" / BUCKET / f"{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:06d}.txt").write_bytes(dice.randbytes(2**20 if number < large else size_bytes))


def place(at: Path, side: str) -> Place:
    return Place(side, "local", "", connection={"root": str(at / side)})


def same(at: Path) -> bool:
    """Both folders hold the same bytes under the same names, and nothing else."""

    def held(side: str) -> dict[str, bytes]:
        root = at / side / BUCKET
        found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".crossload/")}

    return held("here") == held("there")


def ends_of(at: Path) -> Ends:
    here, there = (wiring.StoreAt(place(at, side))(lambda _: None) for side in ("here", "there"))
    return Ends(here, BUCKET, there, BUCKET)


# -- openers for processes: pickled by the name of their module, which a process finds as this folder is on sys.path. A
# test's own module has a name (`tests.journeys...`) that is found only where pytest was started as `python -m pytest`.


@dataclass(frozen=True, slots=True)
class Denied:
    """An opener that a worker's sign-in refuses: module level, plain settings, as a real one is."""

    starter: int
    at: Path

    def __call__(self, say: object) -> Store:
        if os.getpid() != self.starter:
            raise AccessDenied("this user may not", hint="ask for the right")
        return wiring.StoreAt(place(self.at, "there"))(lambda _: None)


@dataclass(frozen=True, slots=True)
class Dying:
    """An opener that ends every process but the one that made it."""

    starter: int
    at: Path

    def __call__(self, say: object) -> Store:
        if os.getpid() != self.starter:
            os._exit(7)
        return wiring.StoreAt(place(self.at, "there"))(lambda _: None)


# -- a server and workers of a fleet ---------------------------------------------------------------------------------


def server_program() -> Path:
    return Path(sys.executable).with_name("temporal")


@contextlib.contextmanager
def fleet_server(at: Path) -> Iterator[str]:
    """A development server on a free port of 127.0.0.1; its address."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    environment = {
        "PATH": os.environ.get("PATH", ""), "HOME": str(at), "TEMPORAL_ENV_FILE": str(at / "none"),
        "DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TEMPORAL_CLI_DISABLE_UPDATE_CHECK": "1",
    }  # fmt: skip
    with (at / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                server_program(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
                "--db-filename", str(at / "server.db"), "--log-level", "error",
                "--dynamic-config-value", "system.forceSearchAttributesCacheRefreshOnRead=true",
            ],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if server.poll() is not None:
                    raise RuntimeError((at / "server.log").read_text())
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def fleet_at(address: str, queue: str = "crossload") -> Fleet:
    connection = {"address": address, "task_queue": queue}
    fleet: Fleet = wiring.provider("temporal").open("fleet", Settings(Place("fleet", "temporal", ""), connection, {}))
    until = time.monotonic() + 30
    while True:  # the port is open a little before the namespace is there
        try:
            fleet.standing("nothing")
            return fleet
        except CrossloadError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def migration_file(at: Path, address: str) -> Migration:
    """One file for coordinator and workers, as a team would have it."""
    path = at / "migration.yaml"
    path.write_text(FILE.format(at=at, address=address), encoding="utf-8")
    migration, problems = wiring.read_file(path)
    assert migration is not None, problems
    return migration


def worker(at: Path) -> subprocess.Popen[bytes]:
    """A worker process with nothing but the migration file."""
    log = (at / "workers.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, HERE / "fleet_worker.py", at / "migration.yaml"], stdout=log, stderr=log
        )
