"""`make demo`, small: every command of it must do what it must, and nothing may be left running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STEPS = ("goals", "inventory", "placement", "foundations", "transfer", "portability", "conversion", "landing",
         "assurance", "cutover")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_plays_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "crossload", "demo", "--small", "--folder", str(folder)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    closing = done.stdout[done.stdout.rindex("The ten steps") :]
    rows = [line.split() for line in closing.splitlines() if line.strip()[:1].isdigit()]
    assert [(row[1], row[2]) for row in rows] == [(name, "good") for name in STEPS]
    assert all(row[3].startswith("E") for row in rows)
    left = [process.name for process in Path("/proc").glob("[0-9]*") if _names(process, folder)]
    assert left == []


def _names(process: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
