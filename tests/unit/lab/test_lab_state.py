"""The state file and the lock of a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from crossload.lab.process import start_ticks
from crossload.lab.site import Site
from crossload.lab.state import HomeLock, LabState, ServerRecord, read_state, write_state


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = ServerRecord("up", os.getpid(), start_ticks(os.getpid()), None, 1.5)
    state = LabState("up", os.getpid(), start_ticks(os.getpid()), {"x": {"api": 15001}}, {}, {"x": record})
    write_state(tmp_path, state)
    found = read_state(tmp_path)
    assert found == state
    assert found.supervised
    assert found.servers["x"].alive


def test_a_pid_that_belongs_to_somebody_else_now_is_not_our_server() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert not ServerRecord("up", os.getpid(), ticks - 5).alive
    assert not LabState("up", os.getpid(), ticks - 5).supervised


def test_a_damaged_or_missing_file_is_an_empty_lab(tmp_path: Path) -> None:
    assert read_state(tmp_path) == LabState()
    (tmp_path / "state.json").write_text('{"phase": "up", "serv')
    assert read_state(tmp_path) == LabState()
    (tmp_path / "state.json").write_text('{"from": "a later release"}')
    assert read_state(tmp_path) == LabState()


def test_the_lock_ends_with_its_holder_and_knows_when_its_home_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from crossload.lab.state import HomeLock\n"
        "lock = HomeLock(pathlib.Path(sys.argv[1])); print(lock.take(), flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    mine = HomeLock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        assert not mine.take()
        other.kill()
    assert mine.take()
    assert mine.still_mine()
    (tmp_path / "lab.lock").unlink()
    assert not mine.still_mine()
    mine.release()


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    site = Site(tmp_path, "x", {}, {})
    value = site.secret("key")
    assert len(value) == 48
    assert site.secret("key") == value
    assert site.secret("key", lambda: "another") == value
    assert site.secret("other") != value
    assert site.secret_path("key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == ["key", "other"]
