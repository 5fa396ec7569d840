"""One move by several processes of this machine, over real folders: killed ones, failing ones, and those whose
starter is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_parts import BUCKET, Denied, Dying, place, same, two_folders

from crossload import wiring
from crossload.engines.mover import shards
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.shards import WorkerLost, leases_of, move_bucket_by
from crossload.ledger.journal import Journal
from crossload.ledger.lease import Leases, Standing
from crossload.ports.errors import AccessDenied

OPTIONS = CopyOptions(workers=2)


@pytest.fixture(autouse=True)
def last_standing(monkeypatch: pytest.MonkeyPatch) -> list[Standing]:
    """What the leases said at the end: the table itself does not outlive the pass."""
    seen: list[Standing] = []

    class Kept(Leases):
        def close(self) -> None:
            with contextlib.suppress(Exception):
                seen.append(self.standing())
            super().close()

    monkeypatch.setattr(shards, "Leases", Kept)
    return seen


def test_three_processes_one_of_them_killed(tmp_path: Path, last_standing: list[Standing]) -> None:
    """The result is equal, one shard at most is begun anew, and what was done of it is not sent again."""
    two_folders(tmp_path, 900, large=3)
    pids: list[int] = []
    moved = 0
    killed = threading.Event()
    said: list[str] = []

    def on_moved(objects: int, size_bytes: int) -> None:
        nonlocal moved
        moved += objects
        if moved >= 200 and not killed.is_set():
            killed.set()
            os.kill(pids[1], signal.SIGKILL)

    with Journal(tmp_path / "journal.db") as journal:
        report = move_bucket_by(
            3, wiring.StoreAt(place(tmp_path, "here")), BUCKET, wiring.StoreAt(place(tmp_path, "there")), BUCKET,
            journal, OPTIONS, Watcher(moved=on_moved, say=said.append), objects_max=60, started=pids.append,
        )  # fmt: skip
        assert journal.totals()["done"][0] == 900
    assert killed.is_set() and len(pids) == 4, "nobody was killed, or nobody took the place"
    assert any("ended with status -9" in line for line in said)
    assert same(tmp_path)
    standing = last_standing[-1]
    assert standing.done == standing.shards >= 15
    assert standing.starts - standing.shards <= 1, "more than one shard was begun anew"
    assert report.copied + report.recognised == 900 and not report.failures
    assert report.recognised < 60, "only what the killed one had brought over was not sent"
    assert not leases_of(tmp_path / "journal.db").exists()
    assert moved == 900


def test_a_second_pass_finds_nothing_to_do(tmp_path: Path) -> None:
    two_folders(tmp_path, 40)
    with Journal(tmp_path / "journal.db") as journal:
        ends = (wiring.StoreAt(place(tmp_path, "here")), BUCKET, wiring.StoreAt(place(tmp_path, "there")), BUCKET)
        first = move_bucket_by(2, *ends, journal, OPTIONS, objects_max=10)
        again = move_bucket_by(2, *ends, journal, OPTIONS, objects_max=10)
    assert (first.copied, again.empty, again.kept) == (40, True, 40)


def test_the_first_fatal_error_ends_all_and_is_the_one_that_is_raised(tmp_path: Path) -> None:
    two_folders(tmp_path, 40)
    here = wiring.StoreAt(place(tmp_path, "here"))
    with Journal(tmp_path / "journal.db") as journal, pytest.raises(AccessDenied, match="may not") as caught:
        move_bucket_by(2, here, BUCKET, Denied(os.getpid(), tmp_path), BUCKET, journal, OPTIONS, objects_max=10)
    assert caught.value.hint == "ask for the right"


def test_processes_that_only_die_are_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_folders(tmp_path, 20)
    monkeypatch.setattr(shards, "_RESTARTS_MAX", 1)
    pids: list[int] = []
    here = wiring.StoreAt(place(tmp_path, "here"))
    with Journal(tmp_path / "journal.db") as journal, pytest.raises(WorkerLost, match="status 7"):
        move_bucket_by(
            2, here, BUCKET, Dying(os.getpid(), tmp_path), BUCKET, journal, OPTIONS, objects_max=10,
            started=pids.append,
        )  # fmt: skip
    assert len(pids) == 4


PASS = textwrap.dedent(
    """\
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from fleet_parts import BUCKET, place
    from crossload import wiring
    from crossload.engines.mover.options import CopyOptions
    from crossload.engines.mover.shards import move_bucket_by
    from crossload.ledger.journal import Journal
    at = Path(sys.argv[1])
    here, there = (wiring.StoreAt(place(at, side)) for side in ("here", "there"))
    with Journal(at / "journal.db") as journal:
        move_bucket_by(2, here, BUCKET, there, BUCKET, journal, CopyOptions(workers=1), objects_max=25,
                       started=lambda pid: print(pid, flush=True))
    """
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_no_process_outlives_whoever_started_it(tmp_path: Path, how: signal.Signals) -> None:
    """And the next pass, by one process, goes on where they stopped."""
    two_folders(tmp_path, 500)
    starter = subprocess.Popen(
        [sys.executable, "-c", PASS, tmp_path, Path(__file__).parent], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert starter.stdout is not None and starter.stderr is not None
    first = [starter.stdout.readline() for _ in range(2)]
    assert all(first), starter.stderr.read().decode()
    pids = [int(line) for line in first]
    until = time.monotonic() + 20
    while time.monotonic() < until and done(tmp_path) < 60:
        time.sleep(0.05)
    starter.send_signal(how)
    starter.wait(20)
    while any(map(alive, pids)) and time.monotonic() < until + 10:
        time.sleep(0.05)
    starter.stdout.close()
    starter.stderr.close()
    assert starter.returncode != 0 and not any(map(alive, pids))
    before = done(tmp_path)
    assert 60 <= before < 500
    with Journal(tmp_path / "journal.db") as journal:
        ends = (wiring.StoreAt(place(tmp_path, "here")), BUCKET, wiring.StoreAt(place(tmp_path, "there")), BUCKET)
        report = move_bucket_by(1, *ends, journal, OPTIONS)
    assert same(tmp_path) and report.kept >= before


def done(at: Path) -> int:
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect((at / "journal.db").as_uri() + "?mode=ro", uri=True)
        try:
            return database.execute("select count(*) from object where state = 'done'").fetchone()[0]
        finally:
            database.close()
    return 0
