"""What the engine decides about a table without any server: form, order, chunks, digests, the journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.chunks_journal import ChunkEntry, ChunkJournal
from crossload.engines.mover.tables import (
    TableOptions,
    choose_form,
    choose_order,
    digest_chunk,
    root_of_chunks,
    rows_per_chunk,
)
from crossload.ports.tables import Chunk, Column, TableInfo, Tables

INFO = TableInfo("t", "sql", "16", (Column("id", "integer"), Column("g", "integer", generated="(id) STORED")), ("id",))


class Server:
    def __init__(self, bytewise: bool) -> None:
        self._bytewise = bytewise

    def bytewise(self) -> bool:
        return self._bytewise


def test_generated_columns_do_not_travel() -> None:
    assert [column.name for column in INFO.sent] == ["id"]


@pytest.mark.parametrize(
    ("carries", "version", "form"),
    [("anywhere", "18", "binary"), ("same-version", "16", "binary"), ("same-version", "18", "text"),
     ("nowhere", "16", "text")],
)  # fmt: skip
def test_the_form_fits_both_sides_and_text_is_explained(carries: str, version: str, form: str) -> None:
    chosen, why = choose_form(replace(INFO, carries=carries, why="a xml"), version)
    assert chosen == form
    assert ("a xml" in why) == (form == "text")


@pytest.mark.parametrize(
    ("order", "source", "target", "by"),
    [("all", False, False, "key"), ("bytewise", True, True, "key"), ("bytewise", True, False, "blocks"),
     ("bytewise", False, True, "blocks"), ("nobody", True, True, "blocks")],
)  # fmt: skip
def test_keys_are_used_only_when_both_sides_sort_alike(order: str, source: bool, target: bool, by: str) -> None:
    sides = [cast("Tables", Server(bytewise)) for bytewise in (source, target)]
    assert choose_order(replace(INFO, key_order=order), *sides) == by
    assert choose_order(replace(INFO, key_order=order, primary_key=()), *sides) == "blocks"


def test_chunks_have_a_size_whatever_the_rows() -> None:
    options = TableOptions(chunk_bytes=10_000_000)
    assert rows_per_chunk(replace(INFO, rows_estimate=1_000_000, size_bytes=100_000_000), options) == 100_000
    assert rows_per_chunk(replace(INFO, rows_estimate=10, size_bytes=100_000_000), options) == 1_000
    assert rows_per_chunk(replace(INFO, rows_estimate=10**9, size_bytes=10**9), options) == 1_000_000
    assert rows_per_chunk(INFO, options) == 50_000, "nobody knows"
    assert rows_per_chunk(INFO, TableOptions(chunk_rows=7)) == 7


@given(st.lists(st.binary(max_size=8)), st.randoms(use_true_random=False), st.integers(0, 10))
def test_digests_by_blocks_know_no_order_and_add_up(rows: list[bytes], random: Any, cut: int) -> None:
    whole = digest_chunk(Chunk(0, "blocks"), iter(rows))
    shuffled = random.sample(rows, len(rows))
    assert digest_chunk(Chunk(0, "blocks"), iter(shuffled)) == whole
    parts = [digest_chunk(Chunk(n, "blocks"), iter(part)) for n, part in enumerate((rows[:cut], rows[cut:]))]
    assert sum(int(part.digest, 16) for part in parts) % 2**256 == int(whole.digest, 16)
    assert digest_chunk(Chunk(0, "blocks"), iter([*rows, b"more"])).digest != whole.digest


def test_digests_by_key_see_order() -> None:
    one, two = ([b"a", b"b"], [b"b", b"a"])
    assert digest_chunk(Chunk(0, "key"), iter(one)) != digest_chunk(Chunk(0, "key"), iter(two))


def test_the_root_covers_ends_rows_and_form() -> None:
    entry = digest_chunk(Chunk(0, "key", None, ("5",)), iter([b"a"]))
    root = root_of_chunks([entry], "binary")
    others = [replace(entry, rows=2), replace(entry, digest="0"), replace(entry, chunk=Chunk(0, "key", None, ("6",)))]
    assert len({root, root_of_chunks([entry], "text"), *(root_of_chunks([other], "binary") for other in others)}) == 5


def test_the_journal_survives_being_closed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "chunks.db"
    chunks = [Chunk(0, "key", None, ("it's", "5")), Chunk(1, "key", ("it's", "5"), None)]
    with ChunkJournal(path) as journal:
        owner = journal.owner
        journal.plan(chunks)
        journal.note(mark="1.2", terms={"by": "key"})
        journal.done(ChunkEntry(chunks[1], 3, 40, "ff"))
    with ChunkJournal(path) as journal:
        assert journal.owner == owner and len(owner) == 12
        assert journal.fact("terms") == {"by": "key"}
        assert journal.entries() == [ChunkEntry(chunks[0]), ChunkEntry(chunks[1], 3, 40, "ff")]
        journal.forget_digests()
        assert journal.entries() == [ChunkEntry(chunk) for chunk in chunks]
        journal.clear()
        assert journal.owner != owner and journal.entries() == [] and journal.fact("mark") is None
