"""One dataset by `crossload move` alone, from its first byte to its undo; and the same killed again and again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.errors import NotFound
from crossload.ports.provider import Settings
from crossload.providers.local.store import LocalStore, open_store

_KILLS, _SEED = 10, 20
_WORKERS, _PART_MIB = 3, 1
_MIB = 2**20
# The bytes of every send are noted the moment before they leave, in a file that a kill leaves whole.
_CHILD = """
import os, sys
from pathlib import Path
from crossload.api import MoveOptions, open_move
from crossload.api.move import Watcher
notes = os.open("sent", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
options = MoveOptions(state=Path("state"), part_size_bytes={part}, workers={workers}, bandwidth={rate})
watcher = Watcher(moved=lambda objects, size_bytes: size_bytes and os.write(notes, b"%d\\n" % size_bytes))
report = open_move("a", "b", options).run(watcher)
sys.exit(len(report.failures))
"""


def contents(folder: Path) -> dict[str, str]:
    """key -> sha256 of every object of a folder."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder)
        if path.is_file() and key.parts[0] != ".crossload":
            found[str(key)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def filled(folder: Path, seed: int, sizes: dict[str, int]) -> None:
    chance = random.Random(seed)
    for key, size in sizes.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))


class Desk:
    """`crossload` in a folder; (what it printed, what it said) once its exit code is the expected one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, expect: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "crossload", *arguments], cwd=self.folder, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder to work in, with a dataset in `a`."""
    sizes = {f"docs/{number:03d}.txt": 1000 + number for number in range(150)}
    filled(tmp_path / "a", 1, {**sizes, "model.bin": 3 * _MIB + 7, "größe/日本 語": 11, "empty": 0})
    return Desk(tmp_path)


def test_one_dataset_there_and_back(desk: Desk) -> None:
    a, b = desk.folder / "a", desk.folder / "b"
    move = ("move", "a", "b", "--part-size", "1")

    looked = desk(*move, "--dry-run", "--json")
    assert json.loads(looked[0].splitlines()[-1])["objects_to_carry"] == 153
    assert not b.exists()

    first = desk(*move, "--json")[0].splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in first]
    assert (events[-1]["event"], events[-1]["objects"]) == ("result", 153)
    state = desk.folder / events[0]["state"]
    assert contents(b) == contents(a)

    (a / "docs" / "000.txt").unlink()
    (a / "docs" / "001.txt").write_bytes(b"changed at the source")
    (a / "docs" / "new.txt").write_bytes(b"new at the source")
    assert "; 2 sent now" in desk(*move)[0]
    assert contents(b) == contents(a)
    proved(desk, state, b)
    assert desk(*move, "--prove")[0].startswith("153 objects equal")

    (b / "docs" / "002.txt").write_bytes(b"changed at the target")
    (b / "docs" / "003.txt").unlink()
    (b / "mine.txt").write_bytes(b"new at the target")
    assert "3 object(s)" not in desk(*move, "--verify", expect=4)[0]  # a stranger is no difference
    assert desk(*move, "--back")[0] == "2 object(s) brought back, 1 removed at the source\n"
    assert contents(a) == contents(b)
    proved(desk, state, b)
    assert "; 0 sent now" in desk(*move)[0]  # and nothing echoes

    (b / "empty").write_bytes(b"somebody's work")
    assert desk(*move, "--undo")[0] == "removed 152 object(s), kept 1 that others wrote or changed\n"
    assert list(contents(b)) == ["empty"]
    assert len(contents(a)) == 153


def proved(desk: Desk, state: Path, target: Path) -> None:
    """By Crossload, and by what every machine has."""
    fingerprint = json.loads(desk("proof", "show", "--json", str(state))[0])["fingerprint"]
    assert "good" in desk("proof", "check", "--key", fingerprint, str(state))[0]
    sums = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", str(state / "SHA256SUMS")], cwd=target, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (sums.returncode, sums.stdout) == (0, ""), sums.stderr


def test_interrupted_it_goes_on(desk: Desk) -> None:
    arguments = ("move", "a", "b", "--part-size", "1", "--workers", "2", "--bandwidth", "1", "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "crossload", *arguments], cwd=desk.folder, stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(contents(desk.folder / "b")) > 5, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    last = json.loads(out.splitlines()[-1])
    assert (process.returncode, last["event"], last["code"]) == (130, "error", "interrupted")
    assert desk("move", "a", "b", "--verify", expect=4)[1].count("not come to its end") == 1
    ended = json.loads(desk(*arguments[:5], "--json")[0].splitlines()[-1])
    assert ended["passes"][0]["resent_bytes"] <= 2 * _MIB
    assert contents(desk.folder / "b") == contents(desk.folder / "a")
    desk("move", "a", "b", "--prove")


def wait_for(ready: Any, process: subprocess.Popen[Any], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, f"it ended with {process.returncode} before it was stopped"
        assert time.monotonic() < until
        time.sleep(0.02)


def held(folder: Path, store: LocalStore) -> int:
    """Bytes at the target that nobody needs to send again: whole objects, and parts of open uploads."""
    total = 0
    if (folder / "b").is_dir():
        total = sum(info.size_bytes for info in store.list("b"))
    if not (folder / "state" / "journal.db").exists():
        return total
    with Journal(folder / "state" / "journal.db") as journal:
        for entry in journal.entries("sending"):
            if entry.upload:
                try:
                    total += sum(part.size_bytes for part in store.parts("b", entry.key, entry.upload))
                except NotFound:
                    pass  # it had become the object
    return total


def test_killed_ten_times_nothing_is_torn_and_little_is_sent_twice(tmp_path: Path) -> None:
    """Re-sent bytes of a kill: what was under way, at most one part or small object a worker."""
    sizes = {f"small/{number:03d}": 20_000 + number for number in range(120)}
    large = {f"large/{number}": 14 * _MIB + 1000 * number for number in range(2)}
    filled(tmp_path / "a", 2, sizes | large)
    whole = contents(tmp_path / "a")
    chance = random.Random(_SEED)
    child = _CHILD.format(part=_PART_MIB * _MIB, workers=_WORKERS, rate=2.4 * _MIB)
    connection = {"root": str(tmp_path)}
    store = open_store(Settings(Place("disk", "local", "here", "DE", connection), connection, {}))
    notes, wasted, kills = tmp_path / "sent", 0, 0

    for number in range(_KILLS):
        already = sent(notes)
        process = subprocess.Popen([sys.executable, "-c", child], cwd=tmp_path)
        if number % 3:  # every third at any time from its start, listings included
            wait_for(lambda already=already: sent(notes) > already, process)
        time.sleep(chance.uniform(0, 0.7))
        assert process.poll() is None, "slow it down: it was through before its kill"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        for key, digest in contents(tmp_path / "b").items():
            assert digest == whole[key], f"kill {kills} left {key} torn"
        again = sent(notes) - held(tmp_path, store) - wasted
        assert again <= (_WORKERS * _PART_MIB + 1) * _MIB, f"kill {kills} costs {again} bytes"
        wasted += max(0, again)

    ended = subprocess.run(
        [sys.executable, "-c", _CHILD.format(part=_PART_MIB * _MIB, workers=_WORKERS, rate=None)], cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    assert contents(tmp_path / "b") == whole
    total = sum((tmp_path / "a" / key).stat().st_size for key in whole)
    assert total <= sent(notes) <= total + kills * (_WORKERS * _PART_MIB + 1) * _MIB
    lines = (tmp_path / "state" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert {line["key"]: line["sha256"] for line in map(json.loads, lines)} == whole


def sent(notes: Path) -> int:
    return sum(map(int, notes.read_text().split())) if notes.exists() else 0
