"""Invariant 11: `crossload --help` is quick, because nothing heavy is imported until it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from source_tree import PACKAGE

HEAVY = {
    "rich", "pydantic", "boto3", "botocore", "yaml", "httpx", "jinja2", "awscrt", "cryptography", "google", "azure",
    "psycopg", "numpy", "mcp", "asyncio", "sqlite3", "tree_sitter", "hcl2", "uvloop", "onnxruntime",
}  # fmt: skip
OURS = {
    "api",
    "wiring",
    "web",
    "lab",
    "engines",
    "stages",
    "providers",
    "conformance",
    "steps",
    "ledger",
    "ports",
    "estate",
}
RATIO_MAX = 15.0


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "100"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


MODULES = """
import json, sys
from crossload.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["nonsense"], []], ids=" ".join)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    loaded = json.loads(run(MODULES, *arguments).stderr.splitlines()[-1])
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert not {name.split(".")[1] for name in loaded if name.startswith("crossload.")} & OURS


@pytest.mark.parametrize("verb", ["apply", "status", "validate", "lab", "demo"])
def test_a_verbs_own_help_loads_no_engine(verb: str) -> None:
    loaded = json.loads(run(MODULES, verb, "--help").stderr.splitlines()[-1])
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert not {name.split(".")[1] for name in loaded if name.startswith("crossload.")} & OURS


def test_completion_of_a_verb_is_quick_too() -> None:
    """Shell completion runs the program at every press of the key."""
    code = MODULES.replace("main(sys.argv[1:])", "main()")
    environment = {
        **os.environ, "PYTHONPATH": str(PACKAGE.parent), "_CROSSLOAD_COMPLETE": "bash_complete",
        "COMP_WORDS": "crossload app", "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,apply"]
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert not {name.split(".")[0] for name in loaded} & HEAVY


def best(code: str, *arguments: str) -> float:
    began = time.perf_counter()
    run(code, *arguments)
    return time.perf_counter() - began


def test_help_costs_at_most_fifteen_times_bare_python() -> None:
    """Best of five each, taken in turns, so that a busy machine slows both alike."""
    bare, helped = [], []
    for _ in range(5):
        bare.append(best("pass"))
        helped.append(best("from crossload.cli.main import main; main()", "--help"))
    ratio = min(helped) / min(bare)
    assert ratio <= RATIO_MAX, (
        f"{min(helped) * 1000:.0f} ms is {ratio:.1f} times bare Python's {min(bare) * 1000:.0f} ms"
    )


def test_importing_the_package_is_free() -> None:
    done = run("import crossload, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in json.loads(done.stdout) if name.startswith("crossload")] == ["crossload"]
