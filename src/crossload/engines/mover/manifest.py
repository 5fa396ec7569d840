"""The manifest of a copy: what arrived, line by line, with a Merkle root, and SHA256SUMS for standard tools."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.mover.merkle import MerkleTree
from crossload.estate.digest import canonical_json
from crossload.ledger.journal import Entry


@dataclass(frozen=True, slots=True)
class ManifestReport:
    """`root` is hexadecimal; `size_bytes` the sum over all objects."""

    path: Path
    sums_path: Path
    objects: int
    size_bytes: int
    root: str


def manifest_line(entry: Entry) -> bytes:
    """Canonical JSON without a newline: this is the Merkle leaf. It says nothing of the target's own etags, so that
    two copies of the same data have the same root."""
    return canonical_json({"key": entry.key, "size_bytes": entry.size_bytes, "sha256": entry.sha256})


def sums_line(sha256: str, key: str) -> str:
    """One line of SHA256SUMS as GNU coreutils writes it: a name with newline or backslash is escaped and marked."""
    if "\\" in key or "\n" in key or "\r" in key:
        name = key.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        return f"\\{sha256}  {name}\n"
    return f"{sha256}  {key}\n"


def write_manifest(entries: Iterable[Entry], folder: Path) -> ManifestReport:
    """Write manifest.jsonl and SHA256SUMS atomically. `entries` must come in UTF-8 key order.

    Raises ValueError when an entry has no digest: nothing counts as copied without one."""
    folder.mkdir(parents=True, exist_ok=True)
    path, sums_path = folder / "manifest.jsonl", folder / "SHA256SUMS"
    tree = MerkleTree()
    total = 0
    temporary, temporary_sums = path.with_suffix(".jsonl.new"), sums_path.with_suffix(".new")
    with temporary.open("wb") as lines, temporary_sums.open("w", encoding="utf-8", newline="\n") as sums:
        for entry in entries:
            if len(entry.sha256) != 64:
                raise ValueError(f"{entry.key} has no sha256: it does not count as copied")
            line = manifest_line(entry)
            tree.add(line)
            lines.write(line + b"\n")
            sums.write(sums_line(entry.sha256, entry.key))
            total += entry.size_bytes
        for stream in (lines, sums):
            stream.flush()
            os.fsync(stream.fileno())
    temporary.replace(path)
    temporary_sums.replace(sums_path)
    return ManifestReport(path, sums_path, tree.leaves, total, tree.root().hex())


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a manifest: {key, size_bytes, sha256}."""
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def root_of(path: Path) -> str:
    """The Merkle root of a manifest file, from its bytes alone."""
    tree = MerkleTree()
    with path.open("rb") as lines:
        for line in lines:
            tree.add(line.rstrip(b"\n"))
    return tree.root().hex()
