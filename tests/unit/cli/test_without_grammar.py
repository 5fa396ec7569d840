"""Without the packages that read code: the plan says so and stands, and only reading code fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from desk_project import FILE, WITHOUT

from crossload.engines.convert import grammar
from crossload.engines.planner.lock import write_lock
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.ports.errors import Unsupported


def plan_of(folder: Path, more: str = "") -> tuple[list[str], dict[str, dict[str, str]]]:
    """(step ids, code -> diagnostic) of a plan for one dataset."""
    (folder / "migration.yaml").write_text(FILE + more, encoding="utf-8")
    docs = Asset("dataset:docs", Kind.DATASET, "docs", "a", "docs", {"bucket": "docs", "size_bytes": 3})
    write_lock(folder / ".crossload" / "desk" / "inventory.lock.json", Inventory((docs,)))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "plan", "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    return [step["id"] for step in made["steps"]], {item["code"]: item for item in made["diagnostics"]}


def test_the_plan_stands_and_names_the_extra(tmp_path: Path) -> None:
    steps, said = plan_of(tmp_path, "app: {path: app}\n")
    assert said["XL714"]["severity"] == "warning"
    assert "tree_sitter" in said["XL714"]["summary"] and "crossload[convert]" in said["XL714"]["hint"]
    assert "transfer/copy/dataset:docs" in steps
    assert [name.split("/")[1] for name in steps if name.startswith("conversion/")] == ["scan", "rewrite", "branch"]


def test_nobody_who_names_no_code_is_told_about_the_extra(tmp_path: Path) -> None:
    steps, said = plan_of(tmp_path)
    assert "XL714" not in said and said["XL700"]["severity"] == "note"
    assert "transfer/copy/dataset:docs" in steps
    assert not [name for name in steps if name.startswith("conversion/")]


def test_reading_code_is_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grammar.parse(b"x = 1\n").type == "module"
    monkeypatch.setattr(grammar, "MISSING", "tree_sitter")
    with pytest.raises(Unsupported, match="tree_sitter") as caught:
        grammar.parse(b"x = 1\n")
    assert caught.value.hint == grammar.INSTALL
