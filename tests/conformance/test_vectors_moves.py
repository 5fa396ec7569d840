"""Whole moves between real stores: what is relayed unread, and what is equal on the other side."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from qdrant_client import QdrantClient

from crossload.engines.mover.vectors import (
    digest_index,
    export_index,
    import_index,
    move_index,
    prove_index,
)
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings
from crossload.ports.vectors import Block, IndexInfo, VectorRow, Vectors, block_rows
from crossload.providers.lancedb.vectors import open_vectors as open_folder
from crossload.providers.postgres.stream import table_of
from crossload.providers.postgres.vectors import open_vectors
from crossload.providers.qdrant.vectors import QdrantVectors

TABLE, DIMENSION, ROWS = "moves_docs", 8, 500


def settings(**connection: str) -> Settings:
    return Settings(Place("db", "postgres", "here", "DE", connection), connection, {})


@pytest.fixture(scope="module")
def urls(conformance_lab: Lab, need: Callable[..., None]) -> tuple[str, str]:
    need("postgres-a", "postgres-b")
    env = conformance_lab.env()
    return env["CROSSLOAD_LAB_PG_A_SEED"], env["CROSSLOAD_LAB_PG_B"]


@pytest.fixture(scope="module")
def stores(urls: tuple[str, str]) -> Iterator[tuple[Vectors, Vectors]]:
    """A table as a team has it, with types that JSON does not know, on the first of two servers."""
    made = random.Random(3)
    with psycopg.connect(urls[0]) as db:
        db.execute(f"drop table if exists {TABLE}")
        columns = (
            "page int8, id int8 primary key, at timestamptz not null, price numeric(9,2), tags text[], "
            f"embedding vector({DIMENSION}) not null, note varchar(20), extra jsonb"
        )
        db.execute(f"create table {TABLE} ({columns})")
        for number in range(ROWS):
            values = [made.gauss(0, 1) for _ in range(DIMENSION)]
            length = sum(value**2 for value in values) ** 0.5
            db.execute(
                f"insert into {TABLE} values (%s, %s, %s, %s, %s, %s, %s, %s)",
                (number % 7 or None, number, "2026-01-02 03:04:05.678+02", f"{number}.50", ["a", "ü"],
                 str([value / length for value in values]), None if number % 3 else "n", '{"b": 1, "a": [1.0]}'),
            )  # fmt: skip
        db.execute(f"create index on {TABLE} using hnsw (embedding vector_cosine_ops) with (m = 8)")
    source, target = open_vectors(settings(url=urls[0])), open_vectors(settings(url=urls[1]))
    yield source, target
    for store in (source, target):
        store.drop(TABLE)


def shape(url: str) -> list[tuple[str, str, bool]]:
    query = """select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute
               where attrelid = %s::regclass and attnum > 0 order by attnum"""
    with psycopg.connect(url) as db:
        return [(row[0], row[1], row[2]) for row in db.execute(query, (TABLE,))]


def test_between_two_servers_rows_are_relayed(stores: tuple[Vectors, Vectors], urls: tuple[str, str]) -> None:
    """Columns keep their order, types and NOT NULL, values their bytes; digests are those of a reading of their own."""
    source, target = stores
    info, sent = move_index(source, target, TABLE)
    assert (sent.rows, info.params) == (ROWS, {"m": "8"})
    assert sent == digest_index(source, TABLE) == digest_index(target, TABLE)
    assert shape(urls[0]) == shape(urls[1])
    whole = f"select md5(string_agg(t::text, '|' order by id)) from {TABLE} t"
    sums = []
    for url in urls:
        with psycopg.connect(url) as db:
            db.execute("set timezone to 'UTC'")
            sums.append(db.execute(whole).fetchone())
    assert sums[0] == sums[1]
    proof = prove_index(source, target, TABLE, sent=sent, queries=30)
    assert proof.equal, proof.problems
    assert target.describe(TABLE).kind == "hnsw"


def test_what_is_relayed_is_not_read(stores: tuple[Vectors, Vectors]) -> None:
    """The load takes the bytes as they came: were the fields beside them used, other vectors would arrive."""
    source, target = stores

    def lying() -> Iterator[Block]:
        for block in source.export(TABLE, wire=source.wire):
            yield Block(block.ids, bytes(len(block.vectors)), block.payloads, block.wire, block.wire_form)

    target.load(source.describe(TABLE), lying())
    assert digest_index(target, TABLE) == digest_index(source, TABLE)


def test_digests_do_not_depend_on_the_servers_settings(stores: tuple[Vectors, Vectors], urls: tuple[str, str]) -> None:
    """A time with a zone is one moment, whatever zone the role of that server lives in."""
    source, _ = stores
    before = digest_index(source, TABLE)
    elsewhere = open_vectors(settings(url=urls[0] + "&options=-ctimezone%3DAsia/Tokyo%20-cdatestyle%3DGerman"))
    assert digest_index(elsewhere, TABLE) == before


def test_a_type_of_their_own_is_read_and_not_relayed(urls: tuple[str, str]) -> None:
    name = "moves_enum"
    with psycopg.connect(urls[0]) as db:
        db.execute("drop type if exists mood cascade; create type mood as enum ('fine', 'bad')")
        db.execute(f"create table {name} (id text primary key, feels mood, embedding vector(2))")
        db.execute(f"insert into {name} values ('a', 'fine', '[1,2]')")
    source, target = open_vectors(settings(url=urls[0])), open_vectors(settings(url=urls[1]))
    try:
        assert [block.wire_form for block in source.export(name, wire=source.wire)] == [""]
        _, sent = move_index(source, target, name)
        assert sent == digest_index(target, name)
        assert [row.payload for block in target.export(name) for row in block.rows()] == [{"feels": "fine"}]
    finally:
        source.drop(name)
        target.drop(name)
        with psycopg.connect(urls[0]) as db:
            db.execute("drop type mood")


def test_a_row_without_a_vector_is_named(urls: tuple[str, str]) -> None:
    name = "moves_null"
    with psycopg.connect(urls[0]) as db:
        db.execute(f"create table {name} (id text primary key, embedding vector(2))")
        db.execute(f"insert into {name} values ('a', '[1,2]'), ('b', null)")
    source = open_vectors(settings(url=urls[0]))
    try:
        for wire in ("", source.wire):
            with pytest.raises(Invalid, match="row b has no vector"):
                list(source.export(name, wire=wire))
    finally:
        source.drop(name)


@pytest.mark.parametrize(
    "form",
    ["", "{}", "nonsense",
     '{"wire": "copy-binary-1", "vector": "v", "columns": [["id", "text", true], ["v", "vector(3)", true]]}',
     '{"wire": "copy-binary-1", "vector": "v", "columns": [["id", "text); drop --", true], ["v", "vector(2)", 1]]}',
     '{"wire": "another", "vector": "v", "columns": [["id", "text", true], ["v", "vector(2)", true]]}'],
)  # fmt: skip
def test_a_form_we_cannot_be_sure_of_is_not_taken(form: str) -> None:
    assert table_of(form, 2) is None


@pytest.mark.parametrize("way", ["folder", "local mode"])
def test_there_and_back_through_another_kind_of_store(
    stores: tuple[Vectors, Vectors], urls: tuple[str, str], tmp_path: Path, way: str
) -> None:
    """Where bits are kept they come back; where vectors are normalised, within what the store declares."""
    source, back = stores
    between: Vectors = open_folder(settings(uri=str(tmp_path)))
    if way == "local mode":
        client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        between = QdrantVectors("q", client, served=False)
    _, sent = move_index(source, between, TABLE)
    there = prove_index(source, between, TABLE, sent=sent, queries=30)
    assert there.equal, there.problems
    assert (there.source.bits == there.target.bits) is (between.precision("cosine") == "exact")
    _, returned = move_index(between, back, TABLE)
    home = digest_index(back, TABLE)
    assert (home.ids, home.payload) == (sent.ids, sent.payload)
    assert home == returned
    if between.precision("cosine") == "exact":
        assert home.bits == sent.bits


def test_a_hundred_permuted_rows_are_found(stores: tuple[Vectors, Vectors], urls: tuple[str, str]) -> None:
    """On the server itself, behind our back: recall stays what it was."""
    source, target = stores
    move_index(source, target, TABLE)
    with psycopg.connect(urls[1]) as db:
        db.execute(f"""update {TABLE} t set embedding = o.embedding from {TABLE} o
                       where t.id < 100 and o.id = (t.id + 1) %% 100""".replace("%%", "%"))  # fmt: skip
    proof = prove_index(source, target, TABLE, queries=30)
    assert proof.nearness is not None
    assert (proof.nearness.target_recall or 0) > 0.9
    assert not proof.equal
    assert any("keeps every bit" in problem for problem in proof.problems)


def test_through_files(stores: tuple[Vectors, Vectors], tmp_path: Path) -> None:
    source, target = stores
    done = export_index(source, TABLE, tmp_path, part_rows=120)
    assert done.parts == 5
    import_index(tmp_path, target)
    assert digest_index(target, TABLE) == done.digest == digest_index(source, TABLE)


def test_blocks_of_a_large_index_are_bounded(urls: tuple[str, str]) -> None:
    """Two MiB of vectors at most, and long texts cut a block earlier."""
    store = open_vectors(settings(url=urls[1]))
    name, dimension = "moves_large", 1536
    vector = struct.pack(f"<{dimension}f", *([0.5] * dimension))
    try:
        many = block_rows(dimension) * 2 + 10
        rows = (VectorRow(f"{n:05d}", vector, {"text": "x" * 30_000}) for n in range(many))
        store.load(IndexInfo(name, dimension, many), (Block.of([row]) for row in rows))
        sizes = [len(block.ids) for block in store.export(name, wire=store.wire)]
        assert sum(sizes) == many
        assert max(sizes) * 30_000 < 9 * 2**20
    finally:
        store.drop(name)
