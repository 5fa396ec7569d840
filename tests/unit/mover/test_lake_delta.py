"""Delta tables that the library itself wrote, carried log last, read back by the library itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake")
pytest.importorskip("pyarrow")

import pyarrow as arrow
from deltalake import DeltaTable, write_deltalake
from memory_store import MemoryStore

from crossload.engines.mover.lake.delta import absolute_paths, copy_delta, digest_delta, log_order, plan_delta
from crossload.engines.mover.lake.files import FolderFiles, StoreFiles
from crossload.ports.errors import Invalid, NotFound, Refused


def rows(start: int, count: int = 10, **more: Any) -> arrow.Table:
    ids = list(range(start, start + count))
    return arrow.table({"id": ids, "part": [f"p {n % 3}/é" for n in ids]} | more)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Partitioned by a value that has to be escaped; a checkpoint in the middle, a schema change, a delete."""
    folder = tmp_path / "old"
    for start in (0, 10, 20):
        write_deltalake(str(folder), rows(start), mode="append", partition_by=["part"])
    DeltaTable(str(folder)).create_checkpoint()
    write_deltalake(
        str(folder), rows(30, score=arrow.array([0.5] * 10)), mode="append", partition_by=["part"], schema_mode="merge"
    )
    DeltaTable(str(folder)).delete("id = 5")
    return folder


def test_a_carried_table_says_the_same(table: Path, tmp_path: Path) -> None:
    version, before = digest_delta(str(table))
    assert (version, before.rows) == (4, 39)
    source, target = FolderFiles(str(table)), FolderFiles(str(tmp_path / "new"))
    plan = plan_delta(source)
    assert plan.version == 4
    assert plan.log[-1] == "_delta_log/_last_checkpoint"
    assert not set(plan.data) & set(plan.log)
    assert set(plan.live) <= set(plan.data)
    report = copy_delta(source, target, plan)
    table.rename(tmp_path / "gone")
    assert digest_delta(str(tmp_path / "new")) == (version, before)
    assert report.version == 4 and report.data_files == len(DeltaTable(str(tmp_path / "new")).file_uris())
    assert DeltaTable(str(tmp_path / "new"), version=1).to_pyarrow_dataset().count_rows() == 20, "time travel"


def test_killed_anywhere_readers_see_no_table_or_a_whole_version(table: Path, tmp_path: Path) -> None:
    """The log is written one file at a time: at each point the target is not a table yet, or a true older version."""
    source = FolderFiles(str(table))
    plan = plan_delta(source)
    seen: list[int] = []
    for stop in range(len(plan.log) + 1):
        folder = tmp_path / f"cut{stop}"
        target = FolderFiles(str(folder))
        for path in (*plan.data, *plan.log[:stop]):
            target.write(f"{folder}/{path}", source.read(f"{table}/{path}"))
        if stop == 0:
            continue
        version, found = digest_delta(str(folder))
        at = DeltaTable(str(table), version=version).to_pyarrow_dataset()
        assert found.rows == at.count_rows()
        seen.append(version)
        copy_delta(source, target, plan)
        assert digest_delta(str(folder)) == digest_delta(str(table))
    assert seen == sorted(seen) and seen[0] == 0


def test_the_mover_may_carry_the_data(table: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    store.ensure_bucket("to")
    source, target = FolderFiles(str(table)), StoreFiles(store, "to", "lake/t")
    plan = plan_delta(source)
    with pytest.raises(NotFound, match="not at the target"):
        copy_delta(source, target, plan, carry=lambda paths: None)
    assert list(target.list()) == [], "no log without its data"

    def carry(paths: tuple[str, ...]) -> None:
        for path in paths:
            target.write(f"{target.base}/{path}", source.read(f"{source.base}/{path}"))

    copy_delta(source, target, plan, carry)
    assert sorted(target.list()) == sorted(source.list())


def test_a_later_commit_is_left_for_the_next_pass(table: Path, tmp_path: Path) -> None:
    source, target = FolderFiles(str(table)), FolderFiles(str(tmp_path / "new"))
    plan = plan_delta(source)
    write_deltalake(str(table), rows(50), mode="append", partition_by=["part"], schema_mode="merge")
    copy_delta(source, target, plan)
    assert DeltaTable(str(tmp_path / "new")).version() == 4
    copy_delta(source, target, plan_delta(source))
    assert digest_delta(str(tmp_path / "new")) == digest_delta(str(table))


def test_another_history_is_not_written_over(table: Path, tmp_path: Path) -> None:
    source, target = FolderFiles(str(table)), FolderFiles(str(tmp_path / "new"))
    copy_delta(source, target, plan_delta(source))
    write_deltalake(str(tmp_path / "new"), rows(90), mode="append", partition_by=["part"], schema_mode="merge")
    with pytest.raises(Refused, match="has a commit that the source has not"):
        copy_delta(source, target, plan_delta(source))
    shutil.rmtree(tmp_path / "new")
    write_deltalake(str(tmp_path / "new"), rows(0))
    with pytest.raises(Refused, match="another commit"):
        copy_delta(source, target, plan_delta(source))


@pytest.mark.parametrize("path", ["s3://elsewhere/t/a.parquet", "/data/t/a.parquet", "file:///t/a.parquet"])
def test_absolute_paths_are_refused_by_name(table: Path, path: str) -> None:
    action = {"add": {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True}}
    (table / "_delta_log" / f"{5:020d}.json").write_text(json.dumps(action) + "\n")
    with pytest.raises(Refused, match="absolute paths") as caught:
        plan_delta(FolderFiles(str(table)))
    assert path in str(caught.value)


def test_absolute_paths_in_a_checkpoint_are_found(table: Path) -> None:
    from pyarrow import parquet

    [path] = (table / "_delta_log").glob("*.checkpoint.parquet")
    found = parquet.read_table(path)
    column = found.column("add").to_pylist()
    for value in column:
        if value:
            value["path"] = "/elsewhere/" + value["path"]
    changed = arrow.array(column, type=found.schema.field("add").type)
    parquet.write_table(found.set_column(found.schema.get_field_index("add"), found.schema.field("add"), changed), path)
    with pytest.raises(Refused, match="/elsewhere/"):
        plan_delta(FolderFiles(str(table)))


def test_deletion_vectors_elsewhere_are_named() -> None:
    vector = {"storageType": "p", "pathOrInlineDv": "old://x/dv.bin"}
    near = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^"}
    found = absolute_paths([{"add": {"path": "a", "deletionVector": v}} for v in (vector, near, None)])
    assert found == ["old://x/dv.bin"]


def test_a_log_with_a_hole_is_damaged(table: Path) -> None:
    (table / "_delta_log" / f"{3:020d}.json").unlink()
    with pytest.raises(Invalid, match="is missing from the log"):
        plan_delta(FolderFiles(str(table)))
    with pytest.raises(NotFound):
        plan_delta(FolderFiles(str(table / "part")))


def test_the_log_has_one_order() -> None:
    names = [f"_delta_log/{n:020d}.{kind}" for n in (0, 1, 10) for kind in ("json", "crc", "checkpoint.parquet")]
    assert log_order(reversed(["_delta_log/_last_checkpoint", *names])) == [*names, "_delta_log/_last_checkpoint"]
