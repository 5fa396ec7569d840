"""Digests of an index, taken block by block in the one pass in which the rows go by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossload.ports.vectors import Block, IndexInfo


class IndexSource(Protocol):
    """What rows are read from: a store, or files."""

    place: str

    def describe(self, name: str) -> IndexInfo: ...
    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]: ...


@dataclass(slots=True)
class IndexDigest:
    """`ids`: sha256 of the ids in order; `bits`: of the float32 bytes in id order; `payload`: of canonical JSON."""

    rows: int = 0
    ids: str = ""
    bits: str = ""
    payload: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "ids_sha256": self.ids, "bits_sha256": self.bits, "payload_sha256": self.payload}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> IndexDigest:
        return cls(int(held["rows"]), held["ids_sha256"], held["bits_sha256"], held["payload_sha256"])


class Hasher:
    """Takes blocks in id order. Each id goes in with its length, or `ab`,`c` would read as `a`,`bc`."""

    def __init__(self) -> None:
        self._ids, self._bits, self._payload = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._rows = 0

    def feed(self, block: Block) -> None:
        self._rows += len(block.ids)
        encoded = [name.encode() for name in block.ids]
        self._ids.update(b"".join(len(name).to_bytes(4, "big") + name for name in encoded))
        self._bits.update(block.vectors)
        self._payload.update(b"".join(payload + b"\n" for payload in block.payloads))

    def passing(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The same blocks, digested as they pass."""
        for block in blocks:
            self.feed(block)
            yield block

    def digest(self) -> IndexDigest:
        return IndexDigest(self._rows, self._ids.hexdigest(), self._bits.hexdigest(), self._payload.hexdigest())


@dataclass(slots=True)
class Sample:
    """Some `wanted` vectors of an index of `rows` rows, spread evenly over it."""

    rows: int
    wanted: int
    vectors: list[bytes] = field(default_factory=list)
    _passed: int = 0

    def feed(self, block: Block) -> None:
        count = len(block.ids)
        stride = max(1, self.rows // max(1, self.wanted))
        width = len(block.vectors) // count if count else 0
        for at in range(-self._passed % stride, count, stride):
            if len(self.vectors) < self.wanted:
                self.vectors.append(bytes(block.vectors[at * width : (at + 1) * width]))
        self._passed += count


def digest_index(vectors: IndexSource, name: str, sample: Sample | None = None) -> IndexDigest:
    """One pass over all rows. Raises NotFound when there is no such index."""
    hasher = Hasher()
    for block in vectors.export(name):
        hasher.feed(block)
        if sample is not None:
            sample.feed(block)
    return hasher.digest()
