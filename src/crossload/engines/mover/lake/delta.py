"""A Delta table under a new address: data first, the log in order, the pointer to its checkpoint last.

Paths in the log are relative, so that bytes need not change (Delta transaction log protocol); absolute ones, as a
shallow clone has, are refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from crossload.engines.mover.lake.files import Files
from crossload.engines.mover.lake.values import ContentDigest, digest_batches
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Refused

_LOG = "_delta_log/"
_POINTER = "_delta_log/_last_checkpoint"
_NUMBERED = re.compile(r"_delta_log/(\d{20})\.(.+)")


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """What to carry, and in which order. `data` in any order, then `log` as it stands. `live` are the data files of
    the version; `size_bytes` counts all."""

    version: int
    data: tuple[str, ...]
    log: tuple[str, ...]
    live: frozenset[str]
    size_bytes: int


@dataclass(slots=True)
class DeltaReport:
    version: int = -1
    data_files: int = 0
    size_bytes: int = 0
    log: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"version": self.version, "data_files": self.data_files, "size_bytes": self.size_bytes,
                "log_sha256": dict(sorted(self.log.items()))}  # fmt: skip


def log_order(paths: Iterable[str]) -> list[str]:
    """Versions in order; in one version the commit before its checksum and its checkpoint; the pointer last."""

    def rank(path: str) -> tuple[int, int, str]:
        found = _NUMBERED.fullmatch(path)
        if path == _POINTER:
            return (2**63, 0, path)
        if not found:
            return (-1, 0, path)
        kind = found[2]
        return (int(found[1]), 0 if kind == "json" else 1 if kind == "crc" else 2, path)

    return sorted(paths, key=rank)


def actions(commit: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The actions of one commit or of a checkpoint in JSON."""
    for number, line in enumerate(commit.decode().splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise Invalid(f"{name}, line {number}: {error}") from error


def checkpoint_actions(data: bytes) -> Iterator[dict[str, Any]]:
    """The file actions of a checkpoint in Parquet."""
    from pyarrow import parquet

    file = parquet.ParquetFile(io.BytesIO(data))
    names = [name for name in ("add", "remove", "sidecar") if name in file.schema_arrow.names]
    for batch in file.iter_batches(columns=names):
        for row in batch.to_pylist():
            found = {name: value for name, value in row.items() if value is not None}
            if found:
                yield found


def absolute_paths(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Addresses that would still lead to the old place, or to another table's files."""
    wrong: list[str] = []
    for action in found:
        for kind in ("add", "cdc", "sidecar"):
            body = action.get(kind)
            if not body:
                continue
            if _is_absolute(body["path"]):
                wrong.append(body["path"])
            vector = body.get("deletionVector")
            if vector and vector.get("storageType") == "p":
                wrong.append(str(vector.get("pathOrInlineDv")))
    return wrong


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or bool(urlsplit(path).scheme)


def plan_delta(source: Files) -> DeltaPlan:
    """Read the log as it is now. Refused for absolute paths, NotFound when there is no log."""
    sizes = dict(source.list())
    commits = {int(m[1]): path for path in sizes if (m := _NUMBERED.fullmatch(path)) and m[2] == "json"}
    points = _checkpoints(sizes)
    if not commits and not points:
        raise NotFound(f"{source.base} has no Delta log")
    version = max([*commits, *points])
    newest = max((v for v in points if v <= version), default=-1)
    missing = sorted(set(range(newest + 1, version + 1)) - set(commits))
    if missing:
        raise Invalid(f"{source.base}: commit {missing[0]} is missing from the log", hint="it was cut, or is being cut")
    seen: list[dict[str, Any]] = []
    for path in points.get(newest, []):
        data = source.read(f"{source.base}/{path}")
        seen += actions(data, path) if path.endswith(".json") else checkpoint_actions(data)
    sidecars = [f"{_LOG}_sidecars/{action['sidecar']['path']}" for action in seen if "sidecar" in action]
    for path in sidecars:
        if not _is_absolute(path.removeprefix(f"{_LOG}_sidecars/")):
            seen += checkpoint_actions(source.read(f"{source.base}/{path}"))
    for number in range(newest + 1, version + 1):
        seen += actions(source.read(f"{source.base}/{commits[number]}"), commits[number])
    wrong = absolute_paths(seen)
    if wrong:
        raise Refused(
            f"the table names {len(wrong)} file(s) by absolute paths: {', '.join(sorted(set(wrong))[:5])}",
            hint="a shallow clone has them; make it a deep one, or rewrite the table, and try again",
        )
    log = [path for path in sizes if _in_log(path, version)]
    data = sorted(path for path in sizes if path not in log and not _is_later(path, version))
    return DeltaPlan(version, tuple(data), tuple(log_order(log)), frozenset(_live(seen)), sum(sizes.values()))


def _checkpoints(sizes: Mapping[str, int]) -> dict[int, list[str]]:
    """Version -> the files of its checkpoint, whole ones only."""
    found: dict[int, list[str]] = {}
    for path in sorted(sizes):
        match = _NUMBERED.fullmatch(path)
        if match and match[2].startswith("checkpoint"):
            found.setdefault(int(match[1]), []).append(path)
    whole: dict[int, list[str]] = {}
    for version, paths in found.items():
        parts = [path for path in paths if re.search(r"\.checkpoint\.\d{10}\.\d{10}\.parquet$", path)]
        singles = [path for path in paths if path not in parts]
        if singles:
            whole[version] = singles[:1]
        elif parts and len(parts) == int(parts[0].split(".")[-2]):
            whole[version] = parts
    return whole


def _in_log(path: str, version: int) -> bool:
    found = _NUMBERED.fullmatch(path)
    return path == _POINTER or bool(found and int(found[1]) <= version)


def _is_later(path: str, version: int) -> bool:
    """Committed after we looked: its files may still be coming."""
    found = _NUMBERED.fullmatch(path)
    return bool(found and int(found[1]) > version)


def _live(seen: Iterable[Mapping[str, Any]]) -> set[str]:
    live: set[str] = set()
    for action in seen:
        if action.get("add"):
            live.add(unquote(action["add"]["path"]))
        elif action.get("remove"):
            live.discard(unquote(action["remove"]["path"]))
    return live


def copy_delta(
    source: Files, target: Files, plan: DeltaPlan, carry: Callable[[tuple[str, ...]], None] | None = None
) -> DeltaReport:
    """Carry the table as `plan` saw it. `carry` moves the data files (the ordinary mover); without one they go through
    memory, one by one. Refused when the target has a log with another history. Safe to repeat."""
    _same_history(source, target, plan)
    if carry is not None:
        carry(plan.data)
    else:
        for path in plan.data:
            _copy(source, target, path)
    missing = sorted(path for path in plan.live if target.size(f"{target.base}/{path}") is None)
    if missing:
        raise NotFound(f"{len(missing)} data file(s) are not at the target: {', '.join(missing[:5])}")
    report = DeltaReport(plan.version, len(plan.live), plan.size_bytes)
    for path in plan.log:
        report.log[path] = _copy(source, target, path)
    return report


def _same_history(source: Files, target: Files, plan: DeltaPlan) -> None:
    """Commits are immutable: one that differs at the target was written by somebody else."""
    ours = set(plan.log)
    for path, size in target.list():
        found = _NUMBERED.fullmatch(path)
        if not found or found[2] != "json":
            continue
        if path not in ours:
            if int(found[1]) > plan.version:
                raise Refused(f"{target.base} has a commit that the source has not: {path}")
            continue
        if source.size(f"{source.base}/{path}") != size or source.read(f"{source.base}/{path}") != target.read(
            f"{target.base}/{path}"
        ):
            raise Refused(f"{target.base} has another commit under {path}: it is another table, or was written to")


def _copy(source: Files, target: Files, path: str) -> str:
    data = source.read(f"{source.base}/{path}")
    target.write(f"{target.base}/{path}", data)
    digest = hashlib.sha256(data).hexdigest()
    if hashlib.sha256(target.read(f"{target.base}/{path}")).hexdigest() != digest:
        raise DigestMismatch(f"{path} does not read back as it was written")
    return digest


def digest_delta(folder: str) -> tuple[int, ContentDigest]:
    """(version, what it says) of a table in a folder, through another reader than ours."""
    from deltalake import DeltaTable

    table = DeltaTable(folder)
    dataset = table.to_pyarrow_dataset()
    return table.version(), digest_batches(dataset.schema.names, dataset.to_batches())
