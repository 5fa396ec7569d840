"""A vector index from one place to another, with equality shown four ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crossload.estate.digest import canonical_json
from crossload.ports.vectors import IndexInfo, VectorRow, Vectors


@dataclass(slots=True)
class IndexDigest:
    """`ids`: sha256 of the ids in order; `bits`: of the float32 bytes in id order; `payload`: of canonical JSON."""

    rows: int = 0
    ids: str = ""
    bits: str = ""
    payload: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "ids_sha256": self.ids, "bits_sha256": self.bits, "payload_sha256": self.payload}


class _Hasher:
    def __init__(self) -> None:
        self._ids, self._bits, self._payload = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._rows = 0

    def feed(self, row: VectorRow) -> None:
        self._rows += 1
        encoded = row.id.encode()
        self._ids.update(len(encoded).to_bytes(4, "big") + encoded)
        self._bits.update(row.vector)
        self._payload.update(canonical_json(dict(row.payload)) + b"\n")

    def digest(self) -> IndexDigest:
        return IndexDigest(self._rows, self._ids.hexdigest(), self._bits.hexdigest(), self._payload.hexdigest())


def digest_index(vectors: Vectors, name: str) -> IndexDigest:
    hasher = _Hasher()
    for row in vectors.export(name):
        hasher.feed(row)
    return hasher.digest()


def move_index(source: Vectors, target: Vectors, name: str) -> tuple[IndexInfo, IndexDigest]:
    """Stream all rows over, then build the index. Returns the source's description and the digest of what was sent.

    Atomic at the target: readers see the old table or the whole new one."""
    info = source.describe(name)
    hasher = _Hasher()

    def passing() -> Iterator[VectorRow]:
        for row in source.export(name):
            hasher.feed(row)
            yield row

    target.load(info, passing())
    target.build(info)
    return info, hasher.digest()


def recall(vectors: Vectors, name: str, queries: list[bytes], k: int) -> float | None:
    """Share of exact neighbours that the index finds (recall@k); None when there is nothing to find."""
    hits = wanted = 0
    for query in queries:
        exact = set(vectors.search(name, query, k, exact=True))
        hits += len(exact & set(vectors.search(name, query, k)))
        wanted += len(exact)  # fewer than k in a small index
    return hits / wanted if wanted else None


def overlap(source: Vectors, target: Vectors, name: str, queries: list[bytes], k: int) -> float | None:
    """Share of equal exact top-k ids on both sides, place by place; None when there is nothing to compare."""
    same = wanted = 0
    for query in queries:
        left = source.search(name, query, k, exact=True)
        right = target.search(name, query, k, exact=True)
        same += sum(1 for a, b in zip(left, right, strict=False) if a == b)
        wanted += max(len(left), len(right))  # fewer than k in a small index
    return same / wanted if wanted else None
