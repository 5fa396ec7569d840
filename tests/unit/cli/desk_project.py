"""A migration between two folders on disk, and a program that runs Crossload with none of its extras installed."""

from __future__ import annotations

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
