"""LanceVectors against a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.vectors import CASES, Case, VectorsBench
from crossload.estate.place import Place
from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings
from crossload.providers.lancedb.vectors import LanceVectors, open_vectors


def vectors_in(folder: Path) -> LanceVectors:
    connection = {"uri": str(folder)}
    return open_vectors(Settings(Place("lake", "lancedb", "here", "DE", connection), connection, {}))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorsBench]:
    folder = tmp_path_factory.mktemp("lance")
    made = VectorsBench(open=lambda: vectors_in(folder))
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lance(case: Case[VectorsBench], bench: VectorsBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


def test_tables_of_others_are_read(tmp_path: Path) -> None:
    """Columns of any type become fields; a table without ids cannot be carried, and says so."""
    from datetime import datetime

    import lancedb
    import pyarrow as pa

    rows = [
        {"page": 2, "id": "b", "at": datetime(2026, 1, 2, 3), "vec": [1.0, 2.0], "note": None},
        {"page": 1, "id": "a", "at": datetime(2026, 1, 2, 4), "vec": [3.0, 4.0], "note": "x"},
    ]
    database = lancedb.connect(str(tmp_path))
    names = {"page": pa.int64(), "id": pa.string(), "at": pa.timestamp("us"), "note": pa.string()}
    schema = pa.schema([*names.items(), ("vec", pa.list_(pa.float32(), 2))])
    database.create_table("theirs", pa.Table.from_pylist(rows, schema))
    database.create_table("nameless", pa.table({"vec": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}))
    vectors = vectors_in(tmp_path)
    info = vectors.describe("theirs")
    assert (info.dimension, info.rows, info.metric, info.kind, info.model) == (2, 2, "l2", "none", "unknown")
    (block,) = vectors.export("theirs")
    assert [(row.id, dict(row.payload)) for row in block.rows()] == [
        ("a", {"page": 1, "at": "2026-01-02T04:00:00", "note": "x"}),
        ("b", {"page": 2, "at": "2026-01-02T03:00:00"}),
    ]
    with pytest.raises(Invalid, match="no column `id`"):
        list(vectors.export("nameless"))


def test_what_may_be_read_is_asked_and_what_may_be_written_is_unknown(tmp_path: Path) -> None:
    """Before a move the foundations ask every service of a place; one without an answer would stop the run."""
    from crossload.ports.identity import Permission
    from crossload.providers.lancedb.identity import open_identity

    connection = {"uri": str(tmp_path)}
    identity = open_identity(Settings(Place("lake", "lancedb", "here", "DE", connection), connection, {}))
    assert identity.sign_in().subject
    verdicts = [identity.check(Permission(f"vectors.{what}", "docs")).verdict for what in ("read", "write")]
    assert verdicts == ["allowed", "unknown"]
