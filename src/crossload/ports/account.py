"""The Account port: what a place holds, found through the provider's own SDK."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from crossload.estate.asset import Asset, Edge, Kind, KindReport
from crossload.ports.vectors import IndexInfo

MODEL_FORMATS: Mapping[str, str] = {".gguf": "gguf", ".safetensors": "safetensors", ".onnx": "onnx", ".pt": "pytorch"}

_GENERIC = frozenset({"model", "weights", "pytorch_model", "adapter_model", "consolidated", "ggml-model", "checkpoint"})

# What a discovery can say of a kind. `failed` is for servers that are down or answer nonsense.
FOUND, DENIED, UNSUPPORTED, FAILED = "found", "denied", "unsupported", "failed"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one look at a place brought back.

    `assets` have ids `kind:name` with the provider's own names. `catalog` is what the place offers to everybody (hosted
    models): an entry becomes part of the estate only when something of the team refers to it. `reports` holds one
    KindReport per kind that was asked for, with the server's own words where it said no."""

    place: str
    assets: tuple[Asset, ...] = ()
    edges: tuple[Edge, ...] = ()
    reports: tuple[KindReport, ...] = ()
    catalog: tuple[Asset, ...] = ()


class Account(Protocol):
    place: str

    def discover(self) -> Discovery:
        """One kind that is denied or unsupported does not stop the others. Raises NotSignedIn or Unavailable when the
        place itself cannot be reached, because an empty inventory would read like an empty account."""
        ...

    def permissions(self) -> list[str]:
        """The least-privilege actions `discover` uses, in the provider's own words, sorted."""
        ...


@dataclass(slots=True)
class Contents:
    """Running tally of one bucket's objects: bounded memory, whatever the number of objects.

    Model artifacts are kept one by one, everything else only counted; the two never overlap, so that no byte is
    planned twice."""

    object_count: int = 0
    size_bytes: int = 0
    largest_bytes: int = 0
    models: dict[str, int] = field(default_factory=dict)

    def add(self, key: str, size_bytes: int) -> None:
        if model_format(key):
            self.models[key] = size_bytes
            return
        self.object_count += 1
        self.size_bytes += size_bytes
        self.largest_bytes = max(self.largest_bytes, size_bytes)


def model_format(key: str) -> str:
    """The format a key's suffix names, "" when it names no model."""
    return MODEL_FORMATS.get(PurePosixPath(key).suffix.lower(), "")


def model_name(key: str) -> str:
    """What people call the artifact: its file name, or its folder's where the file name says nothing."""
    path = PurePosixPath(key)
    return path.parent.name if path.stem.lower() in _GENERIC and path.parent.name else path.stem


def bucket_assets(place: str, bucket: str, native: str, contents: Contents | None, facts: Mapping[str, Any],
                  tags: Mapping[str, str]) -> list[Asset]:  # fmt: skip
    """A bucket in neutral words: a dataset for what is in it, a model for each artifact.

    `contents` is None when the listing was refused: counts are then None (unknown), never 0. A bucket with nothing but
    models gives no dataset."""
    assets: list[Asset] = []
    counts: dict[str, Any] = {"object_count": None, "size_bytes": None, "largest_bytes": None}
    if contents is not None:
        counts = {
            "object_count": contents.object_count,
            "size_bytes": contents.size_bytes,
            "largest_bytes": contents.largest_bytes,
        }
        # A bucket's settings belong to each artifact in it; its counts do not.
        shared = {name: value for name, value in facts.items() if name not in ("older_versions", "delete_markers")}
        for key, size_bytes in sorted(contents.models.items()):
            name = model_name(key)
            more = {**shared, "bucket": bucket, "key": key, "size_bytes": size_bytes, "format": model_format(key)}
            assets.append(Asset(f"model:{name}", Kind.MODEL, name, place, f"{native}/{key}", more, tags))
    if contents is None or contents.object_count or not contents.models:
        more = {**facts, **counts, "bucket": bucket}
        assets.append(Asset(f"dataset:{bucket}", Kind.DATASET, bucket, place, native, more, tags))
    return assets


def index_assets(place: str, indexes: Sequence[IndexInfo], status: str = FOUND, detail: str = "") -> Discovery:
    """What `Vectors.indexes()` answered, with one report. `vector_bytes` is the float32 payload, without the graph."""
    assets = tuple(
        Asset(
            f"index:{info.name}", Kind.INDEX, info.name, place, f"{place}/{info.name}",
            {
                "table": info.name, "dimension": info.dimension, "rows": info.rows, "metric": info.metric,
                "index_type": info.kind, "params": dict(sorted(info.params.items())),
                "vector_bytes": info.rows * info.dimension * 4,
            },
        )
        for info in sorted(indexes, key=lambda item: item.name)
    )  # fmt: skip
    count = len(assets) if status == FOUND else None
    return Discovery(place, assets, (), (KindReport(place, str(Kind.INDEX), status, count, detail),))


def distinct(assets: Iterable[Asset]) -> list[Asset]:
    """Assets with unique ids, sorted by id. All that share an id are renamed alike, by where they are, so that the
    result does not depend on which of them was listed first."""
    groups: dict[str, list[Asset]] = {}
    for asset in assets:
        groups.setdefault(asset.id, []).append(asset)
    out: list[Asset] = []
    for group in groups.values():
        names = [asset.name for asset in group]
        for longer in (_path, _placed, _native):
            if len(set(names)) == len(group):
                break
            names = [longer(asset) for asset in group]
        out += [
            asset if name == asset.name else replace(asset, id=f"{asset.kind}:{name}", name=name)
            for asset, name in zip(group, names, strict=True)
        ]
    return sorted(out, key=lambda item: item.id)


def _path(asset: Asset) -> str:
    return f"{asset.fact('bucket')}/{asset.fact('key')}" if asset.kind is Kind.MODEL else asset.name


def _placed(asset: Asset) -> str:
    return f"{asset.place}/{_path(asset)}"


def _native(asset: Asset) -> str:
    return f"{asset.place}/{asset.native}"
