"""Iceberg tables that the library itself wrote, under a new address, read back by the library itself."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyiceberg")
pytest.importorskip("pyarrow")

from iceberg_tables import add_position_deletes, partitioned_table
from memory_store import MemoryStore
from pyiceberg.table import StaticTable

from crossload.engines.mover.lake.avro import read_avro, write_avro
from crossload.engines.mover.lake.files import FolderFiles, StoreFiles, below
from crossload.engines.mover.lake.iceberg import (
    Relocation,
    digest_iceberg,
    read_metadata,
    relocate_iceberg,
    relocate_metadata,
)
from crossload.ports.errors import Invalid, NotFound, Refused, Unsupported


def moved_data(old: Path, new: Path) -> None:
    """What the ordinary mover does: every file, byte for byte."""
    shutil.copytree(old, new)


def relocated(old: Path, new: Path, location: str) -> tuple[str, dict[str, str]]:
    report = relocate_iceberg(
        FolderFiles(f"file://{old}"), FolderFiles(f"file://{new}"), location, {f"file://{old}": f"file://{new}"}
    )
    return report.metadata_location, report.written


def test_a_relocated_table_says_the_same_from_its_new_place(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    before = digest_iceberg(table.metadata_location)
    assert before.rows == 27
    moved_data(old, new)
    location, written = relocated(old, new, table.metadata_location)
    old.rename(tmp_path / "gone")  # whatever still pointed there would fail now
    assert digest_iceberg(location) == before
    found = StaticTable.from_metadata(location)
    assert [s.snapshot_id for s in found.metadata.snapshots] == [s.snapshot_id for s in table.metadata.snapshots]
    assert found.metadata.last_sequence_number == table.metadata.last_sequence_number
    for snapshot in found.metadata.snapshots:  # time travel too
        assert found.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows > 0
    assert sum(1 for uri in written if uri.endswith(".metadata.json")) == len(table.metadata.metadata_log) + 1
    assert all((new / below(f"file://{new}", uri)).exists() for uri in written)


def test_every_word_of_the_metadata_but_the_addresses_stays(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    moved_data(old, new)
    location, _ = relocated(old, new, table.metadata_location)
    one = Path(table.metadata_location.removeprefix("file://")).read_text()
    assert json.loads(one.replace(f"file://{old}", f"file://{new}")) == read_metadata(
        Path(location.removeprefix("file://")).read_bytes(), location
    )
    for path in old.rglob("*.avro"):
        mine, theirs = read_avro((new / path.relative_to(old)).read_bytes()), read_avro(path.read_bytes())
        assert (mine.meta, mine.sync) == (theirs.meta, theirs.sync)
        for a, b in zip(mine.records(), theirs.records(), strict=True):
            length = a.get("manifest_length")
            if length is not None:
                b["manifest_length"] = (new / below(f"file://{new}", a["manifest_path"])).stat().st_size
            assert json.dumps(a, default=repr) == json.dumps(b, default=repr).replace(f"file://{old}", f"file://{new}")
    for path in old.rglob("*.parquet"):
        assert path.read_bytes() == (new / path.relative_to(old)).read_bytes()


def test_doing_it_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    moved_data(old, new)
    assert relocated(old, new, table.metadata_location) == relocated(old, new, table.metadata_location)


def test_position_deletes_are_written_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    location = add_position_deletes(table, old)
    before = digest_iceberg(location)
    assert before.rows == 26, "the library applies the delete"
    moved_data(old, new)
    pairs = {f"file://{old}": f"file://{new}"}
    report = relocate_iceberg(FolderFiles(f"file://{old}"), FolderFiles(f"file://{new}"), location, pairs)
    assert report.rewritten_deletes == [f"file://{new}/data/deletes.parquet"]
    old.rename(tmp_path / "gone")
    assert digest_iceberg(report.metadata_location) == before
    [entry] = [
        record["data_file"]
        for path in (new / "metadata").glob("deletes*.avro")
        for record in read_avro(path.read_bytes()).records()
    ]
    assert entry["file_size_in_bytes"] == (new / "data/deletes.parquet").stat().st_size
    bounds = {pair["key"]: pair["value"] for pair in entry["lower_bounds"]}
    assert bounds[2147483546].decode().startswith(f"file://{new}/") and len(bounds) == 2
    assert entry["split_offsets"] is None


def test_deletes_that_cannot_be_written_again_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    location = add_position_deletes(partitioned_table(old), old)
    path = old / "metadata" / "deletes-m0.avro"
    manifest = read_avro(path.read_bytes())
    for record in manifest.records():
        record["data_file"]["file_format"] = "PUFFIN"
    path.write_bytes(write_avro(manifest))
    new.mkdir()
    with pytest.raises(Unsupported, match=r"PUFFIN.*old paths"):
        relocated(old, new, location)
    assert list(new.rglob("*")) == []


def test_without_its_data_there_is_no_table(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    moved_data(old, new)
    victim = next(iter(table.scan().plan_files())).file.file_path.removeprefix(f"file://{old}/")
    (new / victim).write_bytes(b"cut short")
    shutil.rmtree(new / "metadata")
    with pytest.raises(NotFound, match=r"1 of \d+ data files"):
        relocated(old, new, table.metadata_location)
    assert not (new / "metadata").exists()


def test_data_elsewhere_needs_its_own_pair(tmp_path: Path) -> None:
    old, new, far = tmp_path / "old", tmp_path / "new", tmp_path / "far"
    table = partitioned_table(old, {"write.data.path": f"file://{far}/data"})
    assert list(far.rglob("*.parquet"))
    moved_data(old, new)
    with pytest.raises(Refused, match="outside of"):
        relocated(old, new, table.metadata_location)
    shutil.copytree(far, new / "far")
    base = f"file://{tmp_path}"
    pairs = {f"file://{old}": f"file://{new}", f"file://{far}": f"file://{new}/far"}
    report = relocate_iceberg(FolderFiles(base), FolderFiles(base), table.metadata_location, pairs)
    far.rename(tmp_path / "gone")
    assert digest_iceberg(report.metadata_location).rows == 27
    properties = StaticTable.from_metadata(report.metadata_location).properties
    assert properties["write.data.path"] == f"file://{new}/far/data"


def test_over_the_store_port(tmp_path: Path) -> None:
    """From a bucket to a bucket with other addresses; then the result is laid out as files and read."""
    old, new = tmp_path / "old", tmp_path / "new"
    table = partitioned_table(old)
    before = digest_iceberg(table.metadata_location)
    store = MemoryStore()
    store.ensure_bucket("from")
    store.ensure_bucket("to")
    source = StoreFiles(store, "from", "lake/t", f"file://{old}")
    target = StoreFiles(store, "to", "t", f"file://{new}")
    for path, _ in FolderFiles(str(old)).list():
        data = (old / path).read_bytes()
        source.write(f"file://{old}/{path}", data)
        if path.endswith(".parquet"):
            target.write(f"file://{new}/{path}", data)
    assert sorted(source.list()) == sorted(FolderFiles(str(old)).list())
    report = relocate_iceberg(source, target, table.metadata_location, {f"file://{old}": f"file://{new}"})
    disk = FolderFiles(f"file://{new}")
    for path, _ in target.list():
        disk.write(f"file://{new}/{path}", target.read(f"file://{new}/{path}"))
    old.rename(tmp_path / "gone")
    assert digest_iceberg(report.metadata_location) == before


def test_a_changed_value_changes_its_column_and_the_rows(tmp_path: Path) -> None:
    import pyarrow as arrow

    from crossload.engines.mover.lake.values import digest_batches

    def digest(*batches: dict[str, list[object]]) -> tuple[dict[str, str], str]:
        found = digest_batches(["a", "b"], [arrow.record_batch(batch) for batch in batches])
        return found.columns, found.whole

    one = digest({"a": [1, 2], "b": ["x", None]})
    assert one == digest({"a": [2], "b": [None]}, {"a": [1], "b": ["x"]}), "neither order nor batches matter"
    swapped = digest({"a": [1, 2], "b": [None, "x"]})
    assert swapped[0] == one[0] and swapped[1] != one[1], "values that change places between rows are seen"
    other = digest({"a": [1, 3], "b": ["x", None]})
    assert other[0]["a"] != one[0]["a"] and other[0]["b"] == one[0]["b"]
    assert digest({"a": [1, 2], "b": ["x", ""]})[0]["b"] != one[0]["b"]


def test_paths_do_not_lead_out_of_the_table(tmp_path: Path) -> None:
    for uri in ("file:///a/../b", "file:///ab/c", "file:///a", "file:///a/b/../../c"):
        with pytest.raises(Invalid):
            below("file:///a", uri)
    assert below("file:///a", "file:///a/b/c") == "b/c"


def test_old_metadata_packed_metadata_and_what_is_not_known() -> None:
    moves = Relocation((("old://b/t", "new://c/u"),))
    first: dict[str, Any] = {
        "format-version": 1, "location": "old://b/t", "snapshots": [{"manifests": ["old://b/t/m.avro"]}],
        "statistics": [{"statistics-path": "old://b/t/s.puffin"}], "properties": {"note": "old://b/t/x"},
    }  # fmt: skip
    data = relocate_metadata(gzip.compress(json.dumps(first).encode()), "x.gz.metadata.json", moves)
    found = json.loads(gzip.decompress(data))
    assert found["snapshots"] == [{"manifests": ["new://c/u/m.avro"]}]
    assert found["statistics"] == [{"statistics-path": "new://c/u/s.puffin"}]
    assert found["properties"] == {"note": "old://b/t/x"}, "words that are no address of ours stay"
    with pytest.raises(Refused):
        relocate_metadata(json.dumps(first | {"location": "old://b/tt"}).encode(), "m", moves)
    for more in ({"format-version": 4}, {"encryption-keys": [{"key-id": "k"}]}):
        with pytest.raises(Unsupported):
            read_metadata(json.dumps(first | more).encode(), "m")
    with pytest.raises(Invalid):
        read_metadata(b"{", "m")
