"""What clumsy and hostile users do, each once, so that it stays one clear line, a hint and the documented exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from desk_project import FILE

from crossload.engines.planner.lock import write_lock
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.ledger.ledger import Ledger


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned project with one dataset of two objects on disk; its folder has a space and an umlaut."""
    folder = tmp_path_factory.mktemp("planned") / "mein Projekt ü"
    (folder / "a" / "docs").mkdir(parents=True)
    (folder / "b").mkdir()
    for name in ("one.txt", "two.txt"):
        (folder / "a" / "docs" / name).write_text(name * 100, encoding="utf-8")
    text = FILE.replace("root: a", f'root: "{folder}/a"').replace("root: b", f'root: "{folder}/b"')
    (folder / "migration.yaml").write_text(text, encoding="utf-8")
    facts = {"bucket": "docs", "object_count": 2, "size_bytes": 1400, "versioning": "off"}
    docs = Asset("dataset:docs", Kind.DATASET, "docs", "a", "docs", facts)
    write_lock(folder / ".crossload" / "desk" / "inventory.lock.json", Inventory((docs,)))
    assert run(folder, "plan").returncode == 0
    return folder


@pytest.fixture
def desk(planned: Path, tmp_path: Path) -> Path:
    """A copy of it for each test to do harm to."""
    return Path(shutil.copytree(planned, tmp_path / planned.name))


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossload", *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_a_failing_verb_leaves_with_its_code_as_a_process(desk: Path) -> None:
    """A shell sees the code of the process; an exception that only our own main hears of would read as success."""
    assert run(desk, "apply", "--stage", "nonsense").returncode == 2
    assert run(desk, "verify").returncode == 3
    assert run(desk, "commit", "--yes").returncode == 3


def test_an_error_with_json_is_one_json_document(desk: Path) -> None:
    done = run(desk, "apply", "--only", "dataset:nobody", "--json")
    told = json.loads(done.stdout)["error"]
    assert done.returncode == 2 and "dataset:nobody" in told["message"] and told["hint"]


def test_apply_does_not_cut_over(desk: Path) -> None:
    done = run(desk, "apply", "--stage", "cutover")
    assert done.returncode == 2 and "crossload cutover" in done.stderr


def test_a_misspelt_asset_is_not_verified_in_silence(desk: Path) -> None:
    done = run(desk, "verify", "--only", "dataset:dosc")
    assert done.returncode == 2 and "dataset:dosc" in done.stderr


def test_a_plan_edited_by_hand_is_refused(desk: Path) -> None:
    path = desk / ".crossload" / "desk" / "plan.lock.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"target":"b"', '"target":"a"'), encoding="utf-8")
    done = run(desk, "apply")
    assert done.returncode == 2 and "crossload plan" in done.stderr and "Traceback" not in done.stderr


def test_a_plan_cut_short_is_refused(desk: Path) -> None:
    path = desk / ".crossload" / "desk" / "plan.lock.json"
    path.write_bytes(path.read_bytes()[:100])
    done = run(desk, "apply")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_changed_record_breaks_the_chain_and_verify_says_so(desk: Path) -> None:
    import sqlite3

    path = desk / ".crossload" / "desk" / "ledger.db"
    ledger = Ledger(path)
    from crossload.estate.evidence import Outcome

    ledger.record("transfer", "", "dataset:docs", "note", Outcome.done("all is well"))
    ledger.close()
    with sqlite3.connect(path) as database:
        database.execute("update evidence set summary='all is very well'")
    done = run(desk, "trace", "dataset:docs")
    assert "was changed after it was written" in done.stdout
    assert run(desk, "verify").returncode == 4


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"- just\n- a list\n", b"a: [1", b"42"])
def test_files_that_are_no_migration_files(desk: Path, content: bytes) -> None:
    (desk / "other.yaml").write_bytes(content)
    done = run(desk, "validate", "-f", "other.yaml")
    assert done.returncode == 2 and "XL1" in done.stderr and "Traceback" not in done.stderr


def test_a_terminal_without_utf8(desk: Path) -> None:
    done = run(desk, "status", LANG="C", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "planned" in done.stdout


def test_from_another_folder(desk: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "status", "-f", str(desk / "migration.yaml"))
    assert done.returncode == 0 and "dataset:docs" in done.stdout
