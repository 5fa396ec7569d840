"""The mover between two folders of this disk: a real store, real processes, kill -9, and sha256sum as judge."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.manifest import write_manifest
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.proof import prove
from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Store

open_store = pytest.importorskip("crossload.providers.local.store").open_store

PART = 64 * 1024
OPTIONS = CopyOptions(part_size_bytes=PART, workers=4)
PROGRAM = """
import sys
from pathlib import Path
from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.provider import Settings
from crossload.providers.local.store import open_store

root = Path(sys.argv[1])
stores = [open_store(Settings(Place(n, "local", "local"), {"root": str(root / n)}, {})) for n in ("a", "b")]
watcher = Watcher(start=lambda *_: print("go", flush=True))
move_bucket(stores[0], "docs", stores[1], "docs", Journal(root / "journal.db"), CopyOptions(64 * 1024, 4), watcher)
"""


@pytest.fixture
def disks(tmp_path: Path) -> Callable[[str], Store]:
    def make(name: str) -> Store:
        (tmp_path / name).mkdir(exist_ok=True)
        store: Store = open_store(Settings(Place(name, "local", "local"), {"root": str(tmp_path / name)}, {}))
        store.ensure_bucket("docs")
        return store

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".crossload" not in path.parts
    }


def test_killed_for_real_and_finished(tmp_path: Path, disks: Callable[[str], Store]) -> None:
    source, target = disks("a"), disks("b")
    generator = random.Random(11)
    for number in range(60):
        size = PART * 5 // 2 if number % 6 == 0 else generator.randrange(3000)
        meta = ObjectMeta("application/octet-stream", user={"number": str(number)}, tags={"kind": "test"})
        source.write("docs", f"folder {number % 7}/object-{number}", generator.randbytes(size), meta)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(generator.uniform(0.01, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        held = files(tmp_path / "a/docs")
        for name, data in files(tmp_path / "b/docs").items():
            assert data == held[name], f"{name} is torn"
    arrived = len(files(tmp_path / "b/docs"))
    journal = Journal(tmp_path / "journal.db")
    report = move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    assert report.failures == []
    assert report.copied + report.recognised + report.kept == 60
    assert report.kept + report.recognised >= arrived
    assert report.resent_bytes <= 4 * PART * 2
    assert files(tmp_path / "b/docs") == files(tmp_path / "a/docs")
    assert {info.key: target.head("docs", info.key)[1] for info in target.list("docs")} == {
        info.key: source.head("docs", info.key)[1] for info in source.list("docs")
    }
    sums = write_manifest(journal.entries("done"), tmp_path / "manifest").sums_path
    check = ["sha256sum", "-c", "--strict", "--quiet", str(sums)]
    subprocess.run(check, cwd=tmp_path / "b/docs", check=True, capture_output=True)
    assert prove(target, "docs", journal, reread_sample=1.0).wrong == {}
    journal.close()


def test_a_bit_that_flips_on_the_disk_is_found_and_mended(tmp_path: Path, disks: Callable[[str], Store]) -> None:
    source, target = disks("a"), disks("b")
    for number in range(5):
        source.write("docs", f"{number}", b"%d" % number * 1000, ObjectMeta())
    journal = Journal(tmp_path / "journal.db")
    move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    path = tmp_path / "b/docs/3"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[500] ^= 0x10
    path.write_bytes(data)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a flipped bit leaves no trace in the times
    wrong = prove(target, "docs", journal, reread_sample=0.0).wrong
    assert set(wrong) == {"3"}
    entry = journal.get("3")
    assert entry is not None
    there = target.head("docs", "3")[0].etag
    journal.put(entry.with_(state="pending", source_etag="", target_etag=there))
    journal.barrier()
    assert move_bucket(source, "docs", target, "docs", journal, OPTIONS).failures == []
    assert files(tmp_path / "b/docs") == files(tmp_path / "a/docs")
    assert prove(target, "docs", journal, reread_sample=1.0).wrong == {}
    journal.close()
