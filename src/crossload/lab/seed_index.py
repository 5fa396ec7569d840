"""Filling cloud A's vector index from the vectors that the workload ships: no embedding is computed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossload.lab.seed_clients import SeedError, Tally

TABLE = "docs_index"
DIMENSION = 384

_COLUMNS = f"id text PRIMARY KEY, chunk text NOT NULL, source text NOT NULL, embedding vector({DIMENSION}) NOT NULL"
_INDEX = "docs_index_embedding"


def read_chunks(workload: Path) -> list[tuple[str, str, str, str]]:
    """(id, chunk, source, vector as pgvector's text) of every chunk. The float16 values are exact in float32."""
    import numpy

    try:
        lines = (workload / "data" / "chunks.jsonl").read_text(encoding="utf-8").splitlines()
        vectors = numpy.load(workload / "data" / "vectors.npy").astype(numpy.float32)
    except OSError as error:
        raise SeedError(f"the shipped vectors cannot be read: {error}") from error
    if vectors.shape != (len(lines), DIMENSION):
        raise SeedError(f"{len(lines)} chunks but vectors of shape {vectors.shape}: run make_data.py again")
    rows: list[tuple[str, str, str, str]] = []
    for line, vector in zip(lines, vectors, strict=True):
        row = json.loads(line)
        rows.append((row["id"], row["chunk"], row["source"], "[" + ",".join(str(value) for value in vector) + "]"))
    return rows


def seed_index(url: str, workload: Path, tally: Tally) -> None:
    """Table `docs_index` with an HNSW cosine index, in one transaction; left alone when it holds exactly these rows."""
    try:
        import psycopg
    except ImportError as error:
        raise SeedError("the seed needs psycopg: pip install 'crossload[postgres]'") from error
    rows = read_chunks(workload)
    tally.total = 1
    with psycopg.connect(url) as connection, connection.cursor() as opened:
        # The SDK's types want literal queries; ours are built from our own constants.
        cursor: Any = opened
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cursor.execute(f"CREATE TEMPORARY TABLE wanted ({_COLUMNS}) ON COMMIT DROP")
        with cursor.copy("COPY wanted (id, chunk, source, embedding) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        made = not _is_there(cursor)
        if made:
            cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
            cursor.execute(f"CREATE TABLE {TABLE} ({_COLUMNS})")
            cursor.execute(f"INSERT INTO {TABLE} SELECT * FROM wanted ORDER BY id")  # noqa: S608  # our own constant
            cursor.execute(
                f"CREATE INDEX {_INDEX} ON {TABLE} USING hnsw (embedding vector_cosine_ops) "
                "WITH (m = 16, ef_construction = 64)"
            )
    tally.add(TABLE, made=made, size_bytes=len(rows) * DIMENSION * 4)


def _is_there(cursor: Any) -> bool:
    cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s AND indexname = %s", (TABLE, _INDEX))
    if cursor.fetchone() != (1,):
        return False
    cursor.execute(
        f"SELECT (SELECT count(*) FROM {TABLE}) = (SELECT count(*) FROM wanted) "  # noqa: S608  # our own constant
        f"AND NOT EXISTS (SELECT id, chunk, source, embedding::text FROM wanted "
        f"EXCEPT SELECT id, chunk, source, embedding::text FROM {TABLE})"
    )
    return cursor.fetchone() == (True,)
