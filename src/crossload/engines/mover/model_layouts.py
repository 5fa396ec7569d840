"""Layouts of models as files: a hub's local cache, a repository with shards, archives that are never unpacked."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from crossload.engines.mover.model_card import MEMBERS_MAX, ModelRow, Reading

_REPOSITORY = re.compile(r"^(.*/)?(models|datasets|spaces)--([^/]+)/(blobs|refs|snapshots|\.no_exist)/(.+)$")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_HEADER_BYTES_MAX = 100 * 2**20  # what the format's own readers accept
_SHARD_INDEX = ".index.json"


def is_hub_cache(keys: list[str]) -> bool:
    return any(_REPOSITORY.match(key) for key in keys)


def archives_in(keys: list[str]) -> list[str]:
    return [key for key in keys if key.endswith(_ARCHIVES)]


def nobodys(key: str) -> bool:
    """Locks and half-done downloads: nobody's content."""
    parts = key.split("/")
    return ".locks" in parts or ("blobs" in parts and key.endswith((".incomplete", ".lock")))


# -- a hub's cache -----------------------------------------------------------------------------------------------------


def hub_rows(reading: Reading) -> list[ModelRow]:
    """One row for each reference (branch, tag, pull request). Blobs are checked against their names, which are digests;
    a reference must lead to a snapshot that is there."""
    snapshots: dict[tuple[str, str], int] = {}
    references: list[tuple[str, str, str]] = []
    for key in reading.files:
        found = _REPOSITORY.match(key)
        if found is None:
            continue
        kind, name, room, rest = found[2], found[3], found[4], found[5]
        if room == "blobs" and not nobodys(key):
            _check_blob(reading, key, rest)
        elif room == "snapshots":
            where = (f"{kind}--{name}", rest.partition("/")[0])
            snapshots[where] = snapshots.get(where, 0) + 1
        elif room == "refs":
            references.append((f"{kind}--{name}", rest, reading.text(key).decode("utf-8", "replace").strip()))
    rows: list[ModelRow] = []
    for repository, reference, commit in sorted(references):
        if not _COMMIT.fullmatch(commit):
            reading.problems.append(f"reference {reference} of {repository} holds no commit: {commit[:60]!r}")
        elif (repository, commit) not in snapshots:
            reading.problems.append(f"reference {reference} of {repository} leads to {commit}, which has no snapshot")
        kind, _, name = repository.partition("--")
        files = snapshots.get((repository, commit))
        fields = {"type": kind, "reference": reference, "commit": commit, "files": files if files else "unknown"}
        rows.append(ModelRow("revision", name.replace("--", "/"), fields))
    return rows


def _check_blob(reading: Reading, key: str, name: str) -> None:
    """A blob is named by SHA-256 (large files) or by git's SHA-1 (the others)."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        real = reading.digest(key)
    elif _COMMIT.fullmatch(name):
        real = reading.git_digest(key)
    else:
        return
    if real != name:
        reading.problems.append(f"{key} is damaged: its bytes are {real}")


# -- shards ------------------------------------------------------------------------------------------------------------


def check_shards(reading: Reading) -> None:
    """Every shard that an index names is there, holds the tensors it should, and is as long as its header says."""
    for key in sorted(reading.files):
        if key.endswith(f".safetensors{_SHARD_INDEX}"):
            _check_index(reading, key)


def _check_index(reading: Reading, key: str) -> None:
    document = _json(reading.reader(key, 0, reading.files[key].size_bytes))
    placed = document.get("weight_map")
    if not isinstance(placed, dict):
        reading.problems.append(f"{key} has no weight_map")
        return
    shards: dict[str, set[str]] = {}
    for tensor, shard in cast(dict[str, Any], placed).items():
        shards.setdefault(str(shard), set()).add(tensor)
    folder = key.rpartition("/")[0]
    for shard, tensors in sorted(shards.items()):
        path = f"{folder}/{shard}" if folder else shard
        if path not in reading.files:
            reading.problems.append(f"{key} names {shard}, which is not there")
            continue
        header = shard_header(reading, path)
        missing = sorted(tensors - set(header))
        if header and missing:
            reading.problems.append(f"{path} lacks {len(missing)} tensors of {key}, {missing[0]} among them")


def shard_header(reading: Reading, key: str) -> dict[str, Any]:
    """The header of a safetensors file: tensor -> its type, shape and offsets. {} and a problem when it is damaged."""
    size = reading.files[key].size_bytes
    length = int.from_bytes(reading.reader(key, 0, 8), "little") if size >= 8 else -1
    if not 0 < length <= min(_HEADER_BYTES_MAX, size - 8):
        reading.problems.append(f"{key} is no safetensors file, or cut short")
        return {}
    header = _json(reading.reader(key, 8, length))
    header.pop("__metadata__", None)
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (KeyError, IndexError, TypeError, ValueError):
        reading.problems.append(f"{key} has a header that cannot be read")
        return {}
    if 8 + length + end != size:
        reading.problems.append(f"{key} has {size} bytes, and its header speaks of {8 + length + end}")
    return header


# -- archives ----------------------------------------------------------------------------------------------------------


def archive_rows(reading: Reading) -> list[ModelRow]:
    """One row for each archive. It moves whole, with its own digest; what is inside is listed and left as it is."""
    rows: list[ModelRow] = []
    for key in sorted(archives_in(list(reading.files))):
        members = reading.members(key)
        unsafe = [name for name in members if name.startswith("/") or ".." in name.split("/")]
        if unsafe:
            reading.problems.append(f"{key} holds {unsafe[0]!r}, which would be unpacked outside of its folder")
        folder = key.rpartition("/")[0]
        count = len(members) if len(members) < MEMBERS_MAX else "unknown"
        code = sorted(name.removeprefix("./") for name in members if name.removeprefix("./").startswith("code/"))
        fields = {"artifact_key": key, "sha256": reading.digest(key), "members": count, "code": code[:100]}
        rows.append(ModelRow("package", folder.rpartition("/")[2] or key, fields))
    return rows


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}
