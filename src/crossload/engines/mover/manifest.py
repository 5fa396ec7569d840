"""The manifest of a copy: what arrived, line by line, with a Merkle root, and SHA256SUMS for standard tools."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.mover.merkle import MerkleTree
from crossload.ledger.journal import Entry

MANIFEST, SUMS = "manifest.jsonl", "SHA256SUMS"
CHECKPOINT, BODY, SIGNATURE, PUBLIC_KEY = "checkpoint", "checkpoint.body", "checkpoint.sig", "checkpoint.pub.pem"
# A longer line is no manifest's: keys have at most 1,024 bytes in every store. It bounds what a reader must hold.
LINE_BYTES_MAX = 2**20
# The bytes of estate.digest.canonical_json, without making an encoder for every line.
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class ManifestReport:
    """`root` is hexadecimal; `size_bytes` the sum over all objects."""

    path: Path
    sums_path: Path
    objects: int
    size_bytes: int
    root: str


def canonical_line(value: dict[str, Any]) -> bytes:
    return _ENCODE(value).encode()


def manifest_line(entry: Entry) -> bytes:
    """Canonical JSON without a newline: this is the Merkle leaf. It says nothing of the target's own etags, so that
    two copies of the same data have the same root."""
    return canonical_line({"key": entry.key, "size_bytes": entry.size_bytes, "sha256": entry.sha256})


def sums_line(sha256: str, key: str) -> str:
    """One line of SHA256SUMS as GNU coreutils writes it: a name with newline or backslash is escaped and marked."""
    if "\\" in key or "\n" in key or "\r" in key:
        name = key.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        return f"\\{sha256}  {name}\n"
    return f"{sha256}  {key}\n"


def checkpoint_body(origin: str, tree_size: int, root: str) -> bytes:
    """What a checkpoint signs: origin, number of leaves and base64 root (given in hexadecimal), a line each."""
    return f"{origin}\n{tree_size}\n{base64.b64encode(bytes.fromhex(root)).decode()}\n".encode()


def write_manifest(entries: Iterable[Entry], folder: Path) -> ManifestReport:
    """Write manifest.jsonl and SHA256SUMS atomically, in memory that does not grow with them. `entries` must come in
    UTF-8 key order. A checkpoint of another manifest is withdrawn first: none ever lies beside what it does not sign.

    Raises ValueError when an entry has no digest: nothing counts as copied without one."""
    folder.mkdir(parents=True, exist_ok=True)
    path, sums_path = folder / MANIFEST, folder / SUMS
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
    root = tree.root().hex()
    if not _signed_already(folder, tree.leaves, root):
        withdraw_checkpoint(folder)
    temporary.replace(path)
    temporary_sums.replace(sums_path)
    sync_folder(folder)
    return ManifestReport(path, sums_path, tree.leaves, total, root)


def _signed_already(folder: Path, objects: int, root: str) -> bool:
    try:
        body = (folder / BODY).read_bytes()
    except FileNotFoundError:
        return False
    return body.endswith(checkpoint_body("", objects, root))


def withdraw_checkpoint(folder: Path) -> None:
    """Remove the checkpoint's files, and wait until the disk knows."""
    for name in (CHECKPOINT, SIGNATURE, BODY, PUBLIC_KEY):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lines_of(path: Path) -> Iterator[bytes]:
    """Lines with their newline; one that is too long comes in pieces without."""
    with path.open("rb", buffering=2**20) as stream:
        while line := stream.readline(LINE_BYTES_MAX):
            yield line


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a manifest: {key, size_bytes, sha256}."""
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def missing_lines(path: Path, keys: Iterable[str]) -> Iterator[str]:
    """Keys of a manifest that are not among `keys`. Both come in UTF-8 order, so neither is held in memory."""
    known = iter(keys)
    at = next(known, None)
    for line in read_manifest(path):
        while at is not None and at < line["key"]:
            at = next(known, None)
        if at != line["key"]:
            yield line["key"]


def root_of(path: Path) -> str:
    """The Merkle root of a manifest file, from its bytes alone."""
    tree = MerkleTree()
    with path.open("rb") as lines:
        for line in lines:
            tree.add(line.rstrip(b"\n"))
    return tree.root().hex()
