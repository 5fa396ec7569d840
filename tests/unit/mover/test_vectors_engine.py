"""Vector indexes: equality is shown by digests, and nearness by counting only what there was to find."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from crossload.engines.mover.vectors import digest_index, move_index, overlap, recall
from crossload.ports.errors import NotFound
from crossload.ports.vectors import IndexInfo, VectorRow


class MemoryVectors:
    """An exact index in memory, whose approximate search can be made to miss."""

    def __init__(self, place: str = "memory") -> None:
        self.place = place
        self.rows: dict[str, list[VectorRow]] = {}
        self.infos: dict[str, IndexInfo] = {}
        self.built: list[str] = []
        self.misses = 0

    def indexes(self) -> list[IndexInfo]:
        return list(self.infos.values())

    def describe(self, name: str) -> IndexInfo:
        if name not in self.infos:
            raise NotFound(f"no index {name}")
        return self.infos[name]

    def export(self, name: str) -> Iterator[VectorRow]:
        self.describe(name)
        yield from sorted(self.rows[name], key=lambda row: row.id.encode())

    def load(self, info: IndexInfo, rows: Iterable[VectorRow]) -> int:
        loaded = list(rows)  # all or nothing: an error in `rows` leaves what was there
        self.rows[info.name], self.infos[info.name] = loaded, info
        return len(loaded)

    def build(self, info: IndexInfo) -> None:
        self.built.append(info.name)

    def search(self, name: str, vector: bytes, k: int, *, exact: bool = False) -> list[str]:
        wanted = struct.unpack("<2f", vector)

        def distance(row: VectorRow) -> float:
            x, y = struct.unpack("<2f", row.vector)
            return (x - wanted[0]) ** 2 + (y - wanted[1]) ** 2

        found = [row.id for row in sorted(self.rows[name], key=distance)][:k]
        return found if exact else found[: len(found) - self.misses]

    def drop(self, name: str) -> None:
        self.rows.pop(name, None)
        self.infos.pop(name, None)


def point(x: float, y: float) -> bytes:
    return struct.pack("<2f", x, y)


@pytest.fixture
def filled() -> MemoryVectors:
    store = MemoryVectors("a")
    rows = [VectorRow(f"row-{n}", point(n, n * 0.5), {"text": f"text {n}", "n": n}) for n in (3, 1, 2, 10)]
    store.load(IndexInfo("docs", 2, len(rows), "cosine", "hnsw"), rows)
    return store


def test_a_moved_index_is_bit_equal(filled: MemoryVectors) -> None:
    target = MemoryVectors("b")
    info, sent = move_index(filled, target, "docs")
    assert digest_index(target, "docs") == sent == digest_index(filled, "docs")
    assert sent.rows == 4
    assert info == target.describe("docs") == filled.describe("docs")
    assert target.built == ["docs"]


def test_every_kind_of_damage_shows_in_the_digest(filled: MemoryVectors) -> None:
    whole = digest_index(filled, "docs")
    rows = filled.rows["docs"]

    def digest(changed: list[VectorRow]):  # type: ignore[no-untyped-def]
        other = MemoryVectors()
        other.load(filled.infos["docs"], changed)
        return digest_index(other, "docs")

    assert digest(list(reversed(rows))) == whole  # the order of loading is nobody's business
    bit = bytes([rows[0].vector[0] ^ 1]) + rows[0].vector[1:]
    flipped = digest([replace(rows[0], vector=bit), *rows[1:]])
    assert (flipped.ids, flipped.payload) == (whole.ids, whole.payload)
    assert flipped.bits != whole.bits
    renamed = digest([replace(rows[0], id="row-4"), *rows[1:]])
    assert renamed.ids != whole.ids
    retold = digest([replace(rows[0], payload={"text": "other", "n": 3}), *rows[1:]])
    assert (retold.ids, retold.bits) == (whole.ids, whole.bits)
    assert retold.payload != whole.payload
    swapped = digest([replace(rows[0], vector=rows[1].vector), replace(rows[1], vector=rows[0].vector), *rows[2:]])
    assert swapped.bits != whole.bits
    assert digest(rows[1:]).rows == 3


def test_ids_are_delimited() -> None:
    """`ab`,`c` and `a`,`bc` are different sets of ids."""
    digests = set()
    for ids in (["ab", "c"], ["a", "bc"]):
        store = MemoryVectors()
        store.load(IndexInfo("x", 2, 2), [VectorRow(name, point(0, 0), {}) for name in ids])
        digests.add(digest_index(store, "x").ids)
    assert len(digests) == 2


def test_a_source_that_breaks_off_leaves_the_target_as_it_was(filled: MemoryVectors) -> None:
    target = MemoryVectors("b")
    target.load(IndexInfo("docs", 2, 1), [VectorRow("old", point(0, 0), {})])

    class Breaking(MemoryVectors):
        def export(self, name: str) -> Iterator[VectorRow]:
            yield from list(super().export(name))[:2]
            raise ConnectionError("gone")

    breaking = Breaking("a")
    breaking.load(filled.infos["docs"], filled.rows["docs"])
    with pytest.raises(ConnectionError):
        move_index(breaking, target, "docs")
    assert [row.id for row in target.export("docs")] == ["old"]


def test_recall_and_overlap_count_what_there_was_to_find(filled: MemoryVectors) -> None:
    queries = [point(1, 1), point(9, 4)]
    assert recall(filled, "docs", queries, 3) == 1.0
    assert recall(filled, "docs", queries, 10) == 1.0  # an index of four rows cannot give ten, and need not
    filled.misses = 1
    assert recall(filled, "docs", queries, 4) == 0.75
    other = MemoryVectors("b")
    other.load(filled.infos["docs"], filled.rows["docs"])
    assert overlap(filled, other, "docs", queries, 10) == 1.0
    other.rows["docs"] = [row for row in other.rows["docs"] if row.id != "row-10"]
    assert (overlap(filled, other, "docs", queries, 4) or 0) < 1.0


def test_nothing_to_compare_is_unknown_and_not_zero(filled: MemoryVectors) -> None:
    empty = MemoryVectors("b")
    empty.load(IndexInfo("docs", 2, 0), [])
    assert recall(filled, "docs", [], 5) is None
    assert overlap(filled, empty, "docs", [], 5) is None
    assert recall(empty, "docs", [point(0, 0)], 5) is None
    assert overlap(empty, empty, "docs", [point(0, 0)], 5) is None
    assert overlap(filled, empty, "docs", [point(0, 0)], 5) == 0.0
