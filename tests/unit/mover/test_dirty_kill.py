"""Killed for real (SIGKILL), again and again, between the queue and the disk: no hint is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from crossload.engines.mover.dirty import DirtySet, listen
from crossload.ledger.journal import Journal
from crossload.ports.changes import CREATED, Batch, Change

KEYS = 400
_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_dirty_kill import Folder, work
work(Path(sys.argv[1]))
"""


class Folder:
    """A queue of files: what is acknowledged is unlinked, and the rest is there after any death."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.home / "queue").iterdir())

    def poll(self, wait_seconds: float) -> Batch:
        some = self.names()[:3]
        return Batch(tuple(Change(name, CREATED, 1.0) for name in some), tuple(some))

    def acknowledge(self, batch: Batch) -> None:
        for name in batch.receipts:
            (self.home / "queue" / name).unlink(missing_ok=True)


def work(home: Path) -> None:
    with DirtySet(home / "dirty.db") as dirty, Journal(home / "journal.db") as journal:
        print("up", flush=True)
        while Folder(home).names():
            listen(Folder(home), dirty, journal, 0)


def test_no_hint_is_lost_by_a_kill(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    names = [f"key-{number:04d}" for number in range(KEYS)]
    for name in names:
        (tmp_path / "queue" / name).touch()
    luck = random.Random(5)
    kills = 0
    while Folder(tmp_path).names() and kills < 8:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path), str(Path(__file__).parent)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        time.sleep(luck.uniform(0, 0.06))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        kills += 1
        with DirtySet(tmp_path / "dirty.db") as dirty:
            known = set(dirty.keys())
        assert known | set(Folder(tmp_path).names()) == set(names)
    assert kills >= 3, "it was over before it could be killed"
    work(tmp_path)
    with DirtySet(tmp_path / "dirty.db") as dirty:
        assert dirty.keys() == names
