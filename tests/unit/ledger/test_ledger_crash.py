"""kill -9, a second process, a full disk: nothing that was recorded is lost, nothing half is ever read."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossload.estate.evidence import Outcome
from crossload.ledger.database import LedgerBroken
from crossload.ledger.journal import Entry, Journal
from crossload.ledger.ledger import Ledger
from crossload.ledger.lock import WorkspaceLock
from crossload.ports.errors import Locked

RECORDER = """
import sys
from pathlib import Path
from crossload.estate.evidence import Outcome
from crossload.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("go", flush=True)
number = 0
while True:
    ledger.begin(f"transfer/copy/{number}")
    outcome = Outcome.done("x" * 200, n=number)
    item = ledger.record("transfer", f"transfer/copy/{number}", "dataset:x", "perform", outcome)
    sys.stdout.write(f"{item.sequence}\\n")
    sys.stdout.flush()
    number += 1
"""

HOLDER = """
import sys, time
from pathlib import Path
from crossload.ledger.lock import WorkspaceLock
with WorkspaceLock(Path(sys.argv[1]), "apply"):
    print("held", flush=True)
    time.sleep(60)
"""

# A file that may not grow behaves like a full disk: write() fails, and nothing else does.
FILLER = """
import json, resource, signal, sys
from pathlib import Path
from crossload.estate.evidence import Outcome
from crossload.ledger.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
ledger.record("goals", "", "estate:x", "note", Outcome.done("first"))
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
done = 0
try:
    while done < 10_000:
        ledger.record("transfer", f"transfer/copy/{done}", "dataset:x", "perform", Outcome.done("x" * 2000))
        done += 1
except Exception as error:
    told = [type(error).__name__, getattr(error, "code", ""), str(error), getattr(error, "hint", "")]
    print(json.dumps({"done": done, "told": told, "states": len(ledger.states())}))
"""


def start(program: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_killed_while_recording_ten_times(tmp_path: Path) -> None:
    """What the process was told is recorded is recorded, and the chain is whole. Ten processes go on with one file."""
    path = tmp_path / "ledger.db"
    generator = random.Random(5)
    for _ in range(10):
        process = start(RECORDER, path)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        for _ in range(generator.randrange(1, 12)):
            process.stdout.readline()
        time.sleep(generator.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        told = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        ledger = Ledger(path)
        assert ledger.check_chain() == ""
        records = [item.sequence for item in ledger.evidence()]
        assert records == list(range(1, len(records) + 1))
        if told:
            assert int(told[-1]) <= len(records) <= int(told[-1]) + 1
        states = {state.state for state in ledger.states().values()}
        assert states <= {"good", "running"}
        ledger.close()


def test_the_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    process = start(HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Locked, match=rf"`crossload apply` holds the lock: pid {process.pid} on .* since 20") as locked:
        WorkspaceLock(path, "verify").__enter__()
    assert locked.value.code == "locked"
    assert locked.value.hint
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with WorkspaceLock(path, "verify"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lock_is_free_after_use_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), WorkspaceLock(path, "apply"):
        raise ZeroDivisionError
    with WorkspaceLock(path, "plan") as held:
        with pytest.raises(Locked, match="`crossload plan` holds the lock"):
            WorkspaceLock(path, "apply").__enter__()
        assert held is not None
    assert path.read_text() == ""  # the name of a holder that is gone is not read as the next one's
    with WorkspaceLock(path, "apply"):
        pass


def test_a_lock_file_with_nonsense_in_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with WorkspaceLock(path, "apply"):
        path.write_text("[]")
        with pytest.raises(Locked, match="another crossload process"):
            WorkspaceLock(path, "apply").__enter__()


def test_a_folder_that_cannot_be_written_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for opened in (lambda path: WorkspaceLock(path, "apply").__enter__(), Ledger, Journal):
        with pytest.raises(LedgerBroken) as broken:
            opened(tmp_path / "file" / "ledger.db")
        assert broken.value.code == "ledger"


def test_a_file_that_is_no_database_is_a_ledger_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database at all, " * 100)
    with pytest.raises(LedgerBroken, match="not a database"):
        Ledger(path)


def test_disk_full_under_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    process = start(FILLER, path)
    text, _ = process.communicate(timeout=60)
    told = json.loads(text)
    kind, code, message, hint = told["told"]
    assert (kind, code) == ("LedgerBroken", "ledger")
    assert str(path) in message
    assert told["done"] > 10
    assert told["states"] == told["done"]
    assert "free disk space" in hint
    ledger = Ledger(path)  # there is room again: it goes on where it stopped
    assert ledger.check_chain() == ""
    assert len(list(ledger.evidence())) == told["done"] + 1
    ledger.record("transfer", "transfer/copy/next", "dataset:x", "perform", Outcome.done("went on"))
    assert ledger.check_chain() == ""
    ledger.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A tmpfs of one MiB, filled to the brim by somebody else while we record."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    try:
        ledger = Ledger(disk / "ledger.db")
        for number in range(20):
            ledger.record("transfer", f"transfer/copy/{number}", "dataset:x", "perform", Outcome.done("x" * 500))
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"\0" * 4096)
        written = 20
        with pytest.raises(LedgerBroken) as broken:
            for number in range(20, 500):
                ledger.record("transfer", f"transfer/copy/{number}", "dataset:x", "perform", Outcome.done("x" * 500))
                written += 1
        assert broken.value.code == "ledger"
        assert "free disk space" in broken.value.hint
        assert ledger.check_chain() == ""
        assert len(list(ledger.evidence())) == written
        filler.unlink()
        ledger.record("transfer", "transfer/copy/next", "dataset:x", "perform", Outcome.done("went on"))
        assert ledger.check_chain() == ""
        assert len(list(ledger.evidence())) == written + 1
        ledger.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_says_what_was_put_before_the_barrier(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for number in range(1200):
        journal.put(Entry(f"key-{number:05d}", number, f"etag-{number}"))
    journal.put(Entry("key-00007", 7, "other", state="done", sha256="s", target_etag="t"))
    journal.count("sent_bytes", 5)
    journal.count("sent_bytes", 6)
    journal.barrier()
    assert [entry.key for entry in journal.entries()] == [f"key-{number:05d}" for number in range(1200)]
    assert journal.get("key-00007") == Entry("key-00007", 7, "other", state="done", sha256="s", target_etag="t")
    assert journal.get("nothing") is None
    assert journal.counter("sent_bytes") == 11
    assert journal.counter("nothing") == 0
    assert journal.totals() == {"pending": (1199, sum(range(1200)) - 7), "done": (1, 7)}
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert again.totals()["done"] == (1, 7)
    again.close()


def test_entries_come_in_utf8_order(tmp_path: Path) -> None:
    keys = ["b", "a", "é", "Z", "a/b", "a b", "😀", "\uffff", "a\n"]
    journal = Journal(tmp_path / "journal.db")
    for key in keys:
        journal.put(Entry(key, 0, ""))
    journal.barrier()
    assert [entry.key for entry in journal.entries()] == sorted(keys, key=str.encode)
    journal.close()


def test_close_waits_for_what_is_queued(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for number in range(2000):
        journal.put(Entry(f"{number}", 0, ""))
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert again.totals() == {"pending": (2000, 0)}
    again.close()


@pytest.mark.timeout(30)
def test_a_key_that_cannot_be_written_is_an_error_and_no_hang(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.put(Entry("lone surrogate \udc80", 0, ""))
    with pytest.raises(LedgerBroken):
        journal.barrier()
    with pytest.raises(LedgerBroken):
        journal.put(Entry("next", 0, ""))
    journal.close()


@pytest.mark.timeout(30)
def test_a_journal_that_cannot_be_opened_for_writing_is_an_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossload.ledger import journal as module

    calls = iter([True, False])
    original = module.connect

    def connect(path: Path, *, synchronous: str):  # type: ignore[no-untyped-def]
        if next(calls):
            return original(path, synchronous=synchronous)
        raise LedgerBroken("no more files")

    monkeypatch.setattr(module, "connect", connect)
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(LedgerBroken, match="no more files"):
        journal.barrier()
    journal.close()


@pytest.mark.timeout(60)
def test_disk_full_under_the_journal(tmp_path: Path) -> None:
    """The first failed write is told to every later one; what the barrier confirmed before is there afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(tmp_path / "journal.db")
    confirmed = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(LedgerBroken) as broken:
            for number in range(100_000):
                journal.put(Entry(f"{number:06d}" + "k" * 900, number, "etag"))
                if number % 50 == 0:
                    journal.barrier()
                    confirmed = number
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert broken.value.code == "ledger"
    journal.close()
    again = Journal(tmp_path / "journal.db")
    keys = [entry.key[:6] for entry in again.entries()]
    assert keys[: confirmed + 1] == [f"{number:06d}" for number in range(confirmed + 1)]
    assert confirmed > 0
    again.put(Entry("next", 0, ""))
    again.barrier()
    again.close()
