"""Four ways of being equal: each finds what the others do not, and the way back cannot be talked into it by recall."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from memory_vectors import MemoryVectors, numbers, point

from crossload.engines.mover.vectors import move_index, prove_index, recheck_index
from crossload.ports.errors import Unsupported
from crossload.ports.vectors import IndexInfo, VectorRow

ROWS, DIMENSION = 300, 16


@pytest.fixture
def source() -> MemoryVectors:
    made = random.Random(5)
    store = MemoryVectors("a")
    rows = []
    for number in range(ROWS):
        values = [made.gauss(0, 1) for _ in range(DIMENSION)]
        length = sum(value**2 for value in values) ** 0.5
        rows.append(VectorRow(f"row-{number:04d}", point(*(value / length for value in values)), {"n": number}))
    store.fill(IndexInfo("docs", DIMENSION, ROWS, "l2", "hnsw"), rows)
    return store


def moved(source: MemoryVectors, fineness: str = "exact") -> MemoryVectors:
    target = MemoryVectors("b", fineness, together=11)
    move_index(source, target, "docs")
    return target


def permuted(target: MemoryVectors, count: int = 100) -> None:
    """The vectors of the first rows, each under the next one's id."""
    rows = target.rows["docs"]
    vectors = [row.vector for row in rows[:count]]
    target.rows["docs"][:count] = [
        replace(row, vector=vector)
        for row, vector in zip(rows[:count], [*vectors[1:], vectors[0]], strict=True)
    ]  # fmt: skip


def test_a_true_copy_is_equal_in_every_way(source: MemoryVectors) -> None:
    proof = prove_index(source, moved(source), "docs", queries=20)
    assert proof.equal
    told = proof.to_json()
    assert (told["ids_equal"], told["bits_equal"], told["payload_equal"], told["error"]) == (True, True, True, "none")
    assert told["nearness"] == {
        "queries": 20, "k": 10, "source_recall": 1.0, "target_recall": 1.0, "overlap": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("fineness", ["exact", "float32", "float16", "int8"])
def test_recall_alone_does_not_pass(source: MemoryVectors, fineness: str) -> None:
    """A hundred rows under each other's ids: the target's own recall is perfect, and it is no copy at any precision."""
    target = moved(source, fineness)
    permuted(target)
    proof = prove_index(source, target, "docs", queries=20)
    assert proof.nearness is not None
    assert (proof.nearness.source_recall, proof.nearness.target_recall) == (1.0, 1.0)
    assert (proof.source.ids, proof.source.payload) == (proof.target.ids, proof.target.payload)
    assert not proof.equal
    assert any("vector" in problem for problem in proof.problems), proof.problems


def test_two_swapped_rows_among_all_are_found(source: MemoryVectors) -> None:
    """Few enough for the top answers to hide them."""
    target = moved(source, "float16")
    permuted(target, 2)
    proof = prove_index(source, target, "docs", queries=5)
    assert any("turned away" in problem for problem in proof.problems)


@pytest.mark.parametrize("fineness", ["float16", "int8"])
def test_rounding_is_equal_within_what_was_declared(source: MemoryVectors, fineness: str) -> None:
    proof = prove_index(source, moved(source, fineness), "docs", queries=20)
    assert proof.problems == ()
    assert proof.source.bits != proof.target.bits
    assert proof.error is not None
    assert 0 < proof.error.largest < 0.01
    assert 0.99 < proof.error.cosine_min <= 1.0


def test_rounding_beyond_what_was_declared_is_a_problem(source: MemoryVectors) -> None:
    """A store that says float16 and keeps int8; and one that says it keeps every bit."""
    target = moved(source, "int8")
    target.fineness = "float16"
    assert any("more than float16 explains" in problem for problem in prove_index(source, target, "docs").problems)
    target.fineness = "exact"
    assert any("keeps every bit" in problem for problem in prove_index(source, target, "docs").problems)


DAMAGE: dict[str, tuple[Callable[[list[VectorRow]], list[VectorRow]], str]] = {
    "a row is missing": (lambda rows: rows[1:], "300 rows at the source, 299"),
    "an id is another": (lambda rows: [*rows[:-1], replace(rows[-1], id="row-zzzz")], "the ids differ"),
    "a payload is another": (lambda rows: [replace(rows[0], payload={"n": "0"}), *rows[1:]], "the payloads differ"),
    "one bit is another": (
        lambda rows: [replace(rows[0], vector=bytes([rows[0].vector[0] ^ 1]) + rows[0].vector[1:]), *rows[1:]],
        "keeps every bit",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(source: MemoryVectors, damage: str) -> None:
    change, words = DAMAGE[damage]
    target = moved(source)
    target.rows["docs"] = change(target.rows["docs"])
    assert any(words in problem for problem in prove_index(source, target, "docs", queries=5).problems)


def test_an_index_that_finds_less_is_a_problem(source: MemoryVectors) -> None:
    target = moved(source)
    target.misses = 2
    proof = prove_index(source, target, "docs", queries=20)
    assert proof.problems == ("recall@10 fell from 1.000 to 0.800",)
    source.misses = 2  # what the source's own index does not find, nobody asks of the target's
    assert prove_index(source, target, "docs", queries=20).equal


def test_a_store_without_search_is_compared_by_its_rows(source: MemoryVectors) -> None:
    target = moved(source)

    def cannot(*_: object, **__: object) -> list[list[str]]:
        raise Unsupported("no search here")

    target.search = cannot  # type: ignore[method-assign]
    proof = prove_index(source, target, "docs")
    assert proof.equal
    assert proof.to_json()["nearness"] == "not measured"


def test_zero_vectors_are_equal_to_themselves_only() -> None:
    source = MemoryVectors("a")
    source.fill(IndexInfo("docs", 2, 2, "l2"), [VectorRow("a", point(0, 0), {}), VectorRow("b", point(0.1, 0.3), {})])
    target = moved(source, "float16")
    assert prove_index(source, target, "docs").equal
    target.rows["docs"][0] = VectorRow("a", point(1e-4, 0), {})
    assert not prove_index(source, target, "docs").equal


def test_a_recheck_needs_the_target_alone(source: MemoryVectors) -> None:
    target = moved(source, "float16")
    proof = prove_index(source, target, "docs", queries=20)
    recorded = {
        **proof.source.to_json(), "target_bits_sha256": proof.target.bits, "equality": proof.to_json(),
    }  # fmt: skip
    found = recheck_index(target, "docs", recorded)
    assert (found.same, found.recall, found.fell) == (True, 1.0, "")
    target.misses = 1
    assert recheck_index(target, "docs", recorded).fell == "0.900, and it was 1.0"
    permuted(target, 2)
    assert not recheck_index(target, "docs", recorded).same
    assert numbers(target.rows["docs"][0].vector) != numbers(source.rows["docs"][0].vector)
