"""A migration between two folders on disk, a program that runs Crossload with none of its extras installed, and what
bash completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILE = """\
apiVersion: crossload/v1
kind: Migration
metadata: {name: desk, owner: support}
goals:
  metrics:
    - {name: bytes, measure: digest_mismatches, direction: lower, limit: 0, unit: count}
    - {name: lag, measure: data_lag, direction: lower, limit: 60, unit: s}
    - {name: errors, measure: error_rate, direction: lower, limit: 0.01, unit: ratio}
sources: [{id: a, provider: local, region: disk-1, country: DE, connection: {root: a}}]
targets: {allow: [{id: b, provider: local, region: disk-2, country: DE, connection: {root: b}}], regions: {min: 1}}
"""

WITHOUT = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("boto3", "botocore", "google", "azure", "psycopg", "mcp", "uvloop", "tree_sitter",
                                  "tree_sitter_python", "ministack", "xllamacpp", "hcl2", "orjson", "httptools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from crossload.cli.main import main
main(sys.argv[1:])
"""

COMPLETE = """
eval "$(crossload completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _crossload_completion crossload; echo "${COMPREPLY[*]}"
"""


def completed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What bash offers for the last of these words, on stdout; `folder` takes a program called crossload."""
    program = folder / "crossload"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m crossload "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return subprocess.run(
        ["bash", "-c", COMPLETE, "bash", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
