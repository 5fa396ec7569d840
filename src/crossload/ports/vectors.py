"""The Vectors port: an index of float32 vectors with ids, text and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """`metric` is cosine | l2 | ip; `kind` is hnsw | ivfflat | none (exact scan)."""

    name: str
    dimension: int
    rows: int
    metric: str = "cosine"
    kind: str = "none"
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorRow:
    """`vector` is float32 little-endian, 4 x dimension bytes; `payload` is JSON-shaped."""

    id: str
    vector: bytes
    payload: Mapping[str, Any]


class Vectors(Protocol):
    place: str

    def indexes(self) -> list[IndexInfo]: ...
    def describe(self, name: str) -> IndexInfo:
        """NotFound when there is none."""
        ...

    def export(self, name: str) -> Iterator[VectorRow]:
        """All rows in id order (bytewise), one snapshot."""
        ...

    def load(self, info: IndexInfo, rows: Iterable[VectorRow]) -> int:
        """Replace the whole index by these rows in one transaction, then build the index. Returns rows written."""
        ...

    def build(self, info: IndexInfo) -> None: ...
    def search(self, name: str, vector: bytes, k: int, *, exact: bool = False) -> list[str]:
        """Ids of the k nearest, nearest first."""
        ...

    def drop(self, name: str) -> None:
        """Silent when it is not there."""
        ...
