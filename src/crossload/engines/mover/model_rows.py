"""Layouts that keep a registry in files: MLflow's file store (experiments, runs, registered models, versions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from crossload.engines.mover.model_card import TEXT_BYTES_MAX, ModelRow, Reading

META = "meta.yaml"
_ORDER = ("experiment", "run", "logged-model", "registered-model", "model-version")
_BESIDE = frozenset({"artifacts", "params", "tags", "metrics"})
_DELETED = "Deleted_Internal"
# Fields of meta.yaml, and of a model's own description, that say where artifacts lie.
URI_FIELDS: Mapping[str, tuple[str, ...]] = {
    META: ("artifact_uri", "artifact_location", "source", "storage_location"),
    "MLmodel": ("artifact_path",),
}


def is_tracking_store(keys: list[str]) -> bool:
    """Whether this is a tracking store or a part of one: a meta.yaml, with what goes beside it."""
    folders = {key.rpartition("/")[0] for key in keys if key.rpartition("/")[2] == META}
    if any(folder.rpartition("/")[2].startswith("version-") for folder in folders):
        return True
    for key in keys:
        parts = key.split("/")
        for position in range(1, len(parts) - 1):
            if parts[position] in _BESIDE and "/".join(parts[:position]) in folders:
                return True
    return False


def read_yaml(data: bytes) -> dict[str, Any]:
    """A mapping, or {} when it is none."""
    import yaml

    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def rows_of(reading: Reading) -> list[ModelRow]:
    """The store's rows, in the order in which a target must create them; rows marked as deleted are left out."""
    by_folder = _children(reading)
    found: list[ModelRow] = []
    for key in reading.files:
        folder, _, name = key.rpartition("/")
        if name != META:
            continue
        meta = read_yaml(reading.text(key))
        if not meta:
            reading.problems.append(f"{key} is no YAML mapping")
            continue
        row = _row(reading, folder, meta, by_folder.get(folder, {}))
        if row is not None:
            found.append(row)
    _check(reading, found)
    return sorted(found, key=lambda row: (_ORDER.index(row.kind), row.name, _number(row)))


def _children(reading: Reading) -> dict[str, dict[str, dict[str, str]]]:
    """folder -> kind (params, tags, metrics, aliases) -> name -> key."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    folders = {key.removesuffix(f"/{META}") for key in reading.files if key.endswith(f"/{META}")}
    for key in reading.files:
        parts = key.split("/")
        for position in range(len(parts) - 2, 0, -1):
            if parts[position] in ("params", "tags", "metrics", "aliases"):
                folder, name = "/".join(parts[:position]), "/".join(parts[position + 1 :])
                if folder in folders:
                    found.setdefault(folder, {}).setdefault(parts[position], {})[name] = key
                    break
    return found


def _row(
    reading: Reading, folder: str, meta: Mapping[str, Any], beside: Mapping[str, Mapping[str, str]]
) -> ModelRow | None:
    parts = folder.split("/")

    def values(kind: str) -> dict[str, str]:
        return {name: _text(reading, key) for name, key in sorted(beside.get(kind, {}).items())}

    if parts[-1].startswith("version-") and "version" in meta:
        if meta.get("current_stage") == _DELETED:
            return None
        fields = {**meta, "tags": values("tags")}
        return ModelRow("model-version", str(meta.get("name") or parts[-2]), _plain(fields))
    if "model_id" in meta:
        fields = {**meta, "tags": values("tags"), "params": values("params")}
        return ModelRow("logged-model", str(meta["model_id"]), _plain(fields))
    if "artifact_uri" in meta and ("run_id" in meta or "run_uuid" in meta):
        metrics = {name: _last(reading, key) for name, key in sorted(beside.get("metrics", {}).items())}
        fields = {**meta, "tags": values("tags"), "params": values("params"), "metrics": metrics}
        return ModelRow("run", str(meta.get("run_id") or meta["run_uuid"]), _plain(fields))
    if "artifact_location" in meta and "experiment_id" in meta:
        return ModelRow("experiment", str(meta["experiment_id"]), _plain({**meta, "tags": values("tags")}))
    if "name" in meta and "creation_timestamp" in meta:
        fields = {**meta, "tags": values("tags"), "aliases": values("aliases")}
        return ModelRow("registered-model", str(meta["name"]), _plain(fields))
    reading.problems.append(f"{folder}/{META} is of no known kind: it moves as a file, without a row")
    return None


def _check(reading: Reading, rows: list[ModelRow]) -> None:
    """What a row names must be there: a version without its run, an alias without its version."""
    runs = {row.name for row in rows if row.kind == "run"}
    versions = {(row.name, str(row.fields.get("version"))) for row in rows if row.kind == "model-version"}
    for row in rows:
        run = row.fields.get("run_id")
        if row.kind == "model-version" and run and runs and run not in runs:
            reading.problems.append(f"version {row.fields.get('version')} of {row.name} names run {run}, not there")
        if row.kind == "registered-model":
            for alias, version in row.fields["aliases"].items():
                if (row.name, version) not in versions:
                    reading.problems.append(f"alias {alias} of {row.name} names version {version}, not there")


def _text(reading: Reading, key: str) -> str:
    if reading.files[key].size_bytes > TEXT_BYTES_MAX:
        reading.problems.append(f"{key} is longer than {TEXT_BYTES_MAX} bytes: its row holds the beginning alone")
    return reading.text(key).decode("utf-8", "replace").removesuffix("\n")


def _last(reading: Reading, key: str) -> dict[str, Any]:
    """The newest line of a metric's history: `timestamp value step`. The history itself moves as a file."""
    lines = reading.text(key).decode("utf-8", "replace").split("\n")
    whole = reading.files[key].size_bytes <= TEXT_BYTES_MAX
    parts = next((line.split() for line in reversed(lines if whole else lines[:0]) if line.strip()), [])
    try:
        return {"timestamp": int(parts[0]), "value": float(parts[1]), "step": int(parts[2]) if len(parts) > 2 else None}
    except (IndexError, ValueError):
        return {"value": "unknown"}


def _number(row: ModelRow) -> int:
    version = str(row.fields.get("version", ""))
    return int(version) if row.kind == "model-version" and version.isdigit() else 0


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-shaped: YAML knows dates too."""
    kept = (str, int, float, bool, type(None), dict, list)
    return {name: value if isinstance(value, kept) else str(value) for name, value in fields.items()}
