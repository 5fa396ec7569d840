"""Invariant 1: imports run down. The contracts stand in pyproject.toml; here they are kept, and shown to bite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import PACKAGE, REPOSITORY, imports, sources

# (contract, file, import that breaks it). `somebody` stands for a module that exists; it is looked up, not listed.
PLANTS = [
    ("imports run down, and every room has its floor", "estate/planted.py", "crossload.ports.errors"),
    ("imports run down, and every room has its floor", "ports/planted.py", "crossload.ledger.lock"),
    ("imports run down, and every room has its floor", "ledger/planted.py", "crossload.steps.plan"),
    ("imports run down, and every room has its floor", "steps/planted.py", "crossload.engines.mover.merkle"),
    ("imports run down, and every room has its floor", "engines/mover/planted.py", "crossload.stages.transfer"),
    ("imports run down, and every room has its floor", "engines/mover/planted_lab.py", "crossload.lab.site"),
    ("imports run down, and every room has its floor", "conformance/planted.py", "crossload.engines.mover.merkle"),
    ("imports run down, and every room has its floor", "stages/planted_up.py", "crossload.wiring"),
    ("imports run down, and every room has its floor", "wiring_planted.py", ""),
    ("stages do not import each other", "stages/planted.py", "crossload.stages.goals"),
    ("engines do not import each other", "engines/mover/planted_engine.py", "crossload.engines.planner.lock"),
    ("providers do not import each other", "providers/local/planted.py", "crossload.providers.postgres"),
    ("only wiring imports providers", "api_planted_inside/planted.py", "crossload.providers.local"),
    ("only wiring imports providers", "engines/mover/planted_provider.py", "crossload.providers.local"),
    (
        "providers and conformance know no plan and no ledger",
        "providers/local/planted_ledger.py",
        "crossload.ledger.lock",
    ),
    ("providers and conformance know no plan and no ledger", "conformance/planted_plan.py", "crossload.steps.plan"),
    ("the lab imports no other room", "lab/planted.py", "crossload.estate.digest"),
    ("the lab imports no other room", "lab/planted_port.py", "crossload.ports.errors"),
    ("the faces know the api and nothing else", "cli/planted.py", "crossload.steps.plan"),
    ("the faces know the api and nothing else", "web/planted.py", "crossload.wiring"),
]


def lint(folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "400"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_all_contracts_are_kept() -> None:
    done = lint(REPOSITORY, REPOSITORY / "src")
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report over a copy of the package with one offender of every kind in it."""
    folder = tmp_path_factory.mktemp("planted")
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.pyc")
    shutil.copytree(PACKAGE, folder / "src" / "crossload", ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for _, path, target in PLANTS:
        file = folder / "src" / "crossload" / path
        if not file.parent.exists():
            file.parent.mkdir()
            (file.parent / "__init__.py").write_text("")
        line = f"from {target.rpartition('.')[0]} import {target.rpartition('.')[2]}\n" if target else ""
        file.write_text(line)
    done = lint(folder, folder / "src")
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("contract, path, target", PLANTS, ids=[f"{path}->{target}" for _, path, target in PLANTS])
def test_a_planted_offender_is_caught(planted: str, contract: str, path: str, target: str) -> None:
    module = "crossload." + path.removesuffix(".py").replace("/", ".")
    assert re.search(rf"^{re.escape(contract)} BROKEN", planted, re.MULTILINE), planted
    if not target:  # a room without a floor: the exhaustive contract names it
        assert module in planted
    elif target.startswith("crossload.providers") and contract.startswith("only wiring"):
        assert re.search(rf"{re.escape(module)} -> crossload\.providers", planted), planted
    else:
        assert re.search(rf"{re.escape(module)} -> {re.escape(target)} ", planted), planted


def test_every_target_of_a_plant_exists() -> None:
    """A plant that imports nothing real would be caught for another reason than the one it is planted for."""
    modules = {source.module for source in sources()}
    assert {target for _, _, target in PLANTS if target} <= modules | {"crossload.providers.local"}


def test_the_top_of_the_package_imports_nothing() -> None:
    """`import crossload` is free."""
    top = next(source for source in sources() if source.path == "__init__.py")
    assert list(imports(top.tree)) == []


def test_stages_are_the_ten_of_the_guide() -> None:
    from crossload import wiring

    files = {source.path.removeprefix("stages/").removesuffix(".py") for source in sources() if source.room == "stages"}
    assert files - {"__init__"} == set(wiring.STAGES)
