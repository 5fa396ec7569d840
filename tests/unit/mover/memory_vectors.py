"""An exact index in memory, whose approximate search can be made to miss, and whose rows can be damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace

from crossload.ports.errors import NotFound
from crossload.ports.vectors import Block, IndexInfo, VectorRow, in_order


class MemoryVectors:
    """`fineness` is the declared precision; with float16 or int8 rows are rounded on the way in."""

    wire = ""

    def __init__(self, place: str = "memory", fineness: str = "exact", together: int = 7) -> None:
        self.place, self.fineness, self.together = place, fineness, together
        self.rows: dict[str, list[VectorRow]] = {}
        self.infos: dict[str, IndexInfo] = {}
        self.built: list[str] = []
        self.exports: list[str] = []  # `after` of every export
        self.misses = 0

    def fill(self, info: IndexInfo, rows: Iterable[VectorRow]) -> None:
        """As somebody else would: any order, nothing checked."""
        self.rows[info.name], self.infos[info.name] = list(rows), info

    def indexes(self) -> list[IndexInfo]:
        return list(self.infos.values())

    def describe(self, name: str) -> IndexInfo:
        if name not in self.infos:
            raise NotFound(f"no index {name}")
        return replace(self.infos[name], rows=len(self.rows[name]))

    def precision(self, metric: str) -> str:
        return self.fineness

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        self.describe(name)
        self.exports.append(after)
        rows = sorted((row for row in self.rows[name] if row.id > after), key=lambda row: row.id.encode())
        for begin in range(0, len(rows), self.together):
            yield Block.of(rows[begin : begin + self.together])

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        loaded = [row for block in in_order(blocks, info.dimension) for row in block.rows()]
        self.fill(info, [replace(row, vector=self.rounded(row.vector)) for row in loaded])
        return len(loaded)

    def rounded(self, vector: bytes) -> bytes:
        values = numbers(vector)
        if self.fineness == "float16":
            values = struct.unpack(f"<{len(values)}e", struct.pack(f"<{len(values)}e", *values))
        elif self.fineness == "int8":
            values = tuple(round(value * 127) / 127 for value in values)
        return struct.pack(f"<{len(values)}f", *values)

    def build(self, info: IndexInfo) -> None:
        self.built.append(info.name)

    def search(self, name: str, vectors: Iterable[bytes], k: int, *, exact: bool = False) -> list[list[str]]:
        self.describe(name)
        return [self._nearest(name, vector, k, exact) for vector in vectors]

    def _nearest(self, name: str, vector: bytes, k: int, exact: bool) -> list[str]:
        wanted = numbers(vector)

        def distance(row: VectorRow) -> tuple[float, str]:
            return sum((x - y) ** 2 for x, y in zip(numbers(row.vector), wanted, strict=True)), row.id

        found = [row.id for row in sorted(self.rows[name], key=distance)][:k]
        return found if exact else found[: len(found) - self.misses]

    def drop(self, name: str) -> None:
        self.rows.pop(name, None)
        self.infos.pop(name, None)


def numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def point(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)
