"""Vector indexes: equality is shown by digests, and nearness by counting only what there was to find."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from memory_vectors import MemoryVectors, point

from crossload.engines.mover.vectors import digest_index, move_index, overlap, recall
from crossload.ports.errors import Invalid
from crossload.ports.vectors import Block, IndexInfo, VectorRow, in_order, payload_bytes


@pytest.fixture
def filled() -> MemoryVectors:
    store = MemoryVectors("a")
    rows = [VectorRow(f"row-{n}", point(n, n * 0.5), {"text": f"text {n}", "n": n}) for n in (3, 1, 2, 10)]
    store.fill(IndexInfo("docs", 2, len(rows), "cosine", "hnsw"), rows)
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
        other.fill(filled.infos["docs"], changed)
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
        store.fill(IndexInfo("x", 2, 2), [VectorRow(name, point(0, 0), {}) for name in ids])
        digests.add(digest_index(store, "x").ids)
    assert len(digests) == 2


def test_a_source_that_breaks_off_leaves_the_target_as_it_was(filled: MemoryVectors) -> None:
    target = MemoryVectors("b")
    target.fill(IndexInfo("docs", 2, 1), [VectorRow("old", point(0, 0), {})])

    class Breaking(MemoryVectors):
        def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
            yield next(iter(super().export(name)))
            raise ConnectionError("gone")

    breaking = Breaking("a", together=2)
    breaking.fill(filled.infos["docs"], filled.rows["docs"])
    with pytest.raises(ConnectionError):
        move_index(breaking, target, "docs")
    assert [block.ids for block in target.export("docs")] == [["old"]]
    assert not [one for one in threading.enumerate() if one.name == "vectors-reader"], "the reader goes with the move"


def test_recall_and_overlap_count_what_there_was_to_find(filled: MemoryVectors) -> None:
    queries = [point(1, 1), point(9, 4)]
    assert recall(filled, "docs", queries, 3) == 1.0
    assert recall(filled, "docs", queries, 10) == 1.0  # an index of four rows cannot give ten, and need not
    filled.misses = 1
    assert recall(filled, "docs", queries, 4) == 0.75
    other = MemoryVectors("b")
    other.fill(filled.infos["docs"], filled.rows["docs"])
    assert overlap(filled, other, "docs", queries, 10) == 1.0
    other.rows["docs"] = [row for row in other.rows["docs"] if row.id != "row-10"]
    assert (overlap(filled, other, "docs", queries, 4) or 0) < 1.0


def test_nothing_to_compare_is_unknown_and_not_zero(filled: MemoryVectors) -> None:
    empty = MemoryVectors("b")
    empty.fill(IndexInfo("docs", 2, 0), [])
    assert recall(filled, "docs", [], 5) is None
    assert overlap(filled, empty, "docs", [], 5) is None
    assert recall(empty, "docs", [point(0, 0)], 5) is None
    assert overlap(empty, empty, "docs", [point(0, 0)], 5) is None
    assert overlap(filled, empty, "docs", [point(0, 0)], 5) == 0.0


def test_a_target_that_fails_ends_the_reader(filled: MemoryVectors) -> None:
    """The thread that reads ahead must not wait for ever for room that nobody makes."""
    closed: list[bool] = []

    class Endless(MemoryVectors):
        def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
            try:
                number = 0
                while True:
                    number += 1
                    yield Block.of([VectorRow(f"{number:09d}", point(1, 2), {})])
            finally:
                closed.append(True)

    class Full(MemoryVectors):
        def load(self, info, blocks):  # type: ignore[no-untyped-def]
            for _ in zip(range(3), blocks, strict=False):
                pass
            raise OSError("disk full")

    endless = Endless("a")
    endless.fill(filled.infos["docs"], [])
    with pytest.raises(OSError, match="disk full"):
        move_index(endless, Full("b"), "docs")
    assert closed == [True]
    assert not [one for one in threading.enumerate() if one.name == "vectors-reader"]


def test_digests_do_not_depend_on_how_blocks_are_cut(filled: MemoryVectors) -> None:
    digests = []
    for together in (1, 2, 3, 100):
        filled.together = together
        digests.append(digest_index(filled, "docs"))
    assert digests[1:] == digests[:-1]


def test_blocks_are_looked_at_before_they_are_written() -> None:
    good = Block.of([VectorRow("a", point(1, 2), {}), VectorRow("b", point(1, 2), {"x": None})])
    assert good.payloads == [b"{}", b"{}"]
    assert list(in_order([good], 2)) == [good]
    for bad, words in (
        ([replace(good, ids=["b", "a"])], "out of order"),
        ([good, replace(good, ids=["b", "c"])], "comes twice"),
        ([replace(good, ids=["", "a"])], "is empty"),
        ([replace(good, vectors=good.vectors[:-1])], "does not hold"),
        ([replace(good, payloads=[b"{}"])], "does not hold"),
    ):
        with pytest.raises(Invalid, match=words):
            list(in_order(bad, 2))
    with pytest.raises(Invalid, match="different lengths"):
        Block.of([VectorRow("a", point(1), {}), VectorRow("b", point(1, 2, 3), {})])
    with pytest.raises(Invalid, match="JSON cannot say"):
        payload_bytes({"x": float("nan")})
    assert payload_bytes({"x": "NaN"}) == b'{"x":"NaN"}'
