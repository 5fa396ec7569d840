"""A catalog in memory, so that the Iceberg library itself writes the tables that are relocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as arrow
from pyarrow import parquet
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DoubleType, LongType, NestedField, StringType, TimestampType


class OneTable(NoopCatalog):
    """Keeps the address of one table's newest metadata."""

    newest = ""

    def make(self, schema: Schema, location: str, spec: PartitionSpec, properties: dict[str, str]) -> Table:
        metadata = new_table_metadata(
            location=location, schema=schema, partition_spec=spec, sort_order=UNSORTED_SORT_ORDER, properties=properties
        )
        self.newest = load_location_provider(location, properties).new_table_metadata_file_location()
        MetastoreCatalog._write_metadata(metadata, load_file_io({}, self.newest), self.newest)
        return self.load_table(("one", "table"))

    def load_table(self, identifier: Any) -> Table:
        file_io = load_file_io({}, self.newest)
        metadata = FromInputFile.table_metadata(file_io.new_input(self.newest))
        return Table(("one", "table"), metadata, self.newest, file_io, self)

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        current = self.load_table(("one", "table"))
        staged = MetastoreCatalog._update_and_stage_table(self, current, table.name(), requirements, updates)  # type: ignore[arg-type]
        if staged.metadata == current.metadata:
            return CommitTableResponse(metadata=current.metadata, metadata_location=self.newest)
        MetastoreCatalog._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        self.newest = staged.metadata_location
        return CommitTableResponse(metadata=staged.metadata, metadata_location=self.newest)

    @staticmethod
    def _parse_metadata_version(metadata_location: str) -> int:
        return MetastoreCatalog._parse_metadata_version(metadata_location)


def rows(*values: tuple[int, str], **more: Any) -> arrow.Table:
    columns: dict[str, Any] = {
        "id": arrow.array([value[0] for value in values], arrow.int64()),
        "kind": [value[1] for value in values],
        "at": arrow.array([value[0] * 1_000_000 for value in values], arrow.timestamp("us")),
    }
    return arrow.table(columns | more)


def partitioned_table(folder: Path, properties: dict[str, str] | None = None) -> Table:
    """Partitioned, four appends, a schema change, an overwrite and a delete."""
    schema = Schema(
        NestedField(1, "id", LongType(), required=False), NestedField(2, "kind", StringType(), required=False),
        NestedField(3, "at", TimestampType(), required=False),
    )  # fmt: skip
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "kind"))
    table = OneTable("test").make(schema, f"file://{folder}", spec, properties or {})
    for start in range(3):
        table.append(rows(*((start * 10 + n, "ab"[n % 2]) for n in range(10))))
    with table.update_schema() as change:
        change.add_column("score", DoubleType())
    table.append(rows((100, "ü ö"), (101, "a"), score=[1.5, None]))
    table.delete("id = 3")
    table.delete("kind == 'b' and id < 10")
    return table


def add_position_deletes(table: Table, folder: Path) -> str:
    """Write a position delete of the first row of one data file, as other engines do: the library reads these and
    does not write them. Returns the new metadata's address."""
    from pyiceberg.manifest import (
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestContent,
        ManifestEntry,
        ManifestEntryStatus,
        ManifestWriterV2,
        write_manifest_list,
    )
    from pyiceberg.table.snapshots import Operation, Snapshot, Summary
    from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate

    victim = next(iter(table.scan().plan_files())).file
    path = f"file://{folder}/data/deletes.parquet"
    schema = arrow.schema([
        arrow.field("file_path", arrow.string(), False, {"PARQUET:field_id": "2147483546"}),
        arrow.field("pos", arrow.int64(), False, {"PARQUET:field_id": "2147483545"}),
    ])  # fmt: skip
    local = folder / "data" / "deletes.parquet"
    parquet.write_table(arrow.table({"file_path": [victim.file_path], "pos": [0]}, schema=schema), local)
    bound = {2147483546: victim.file_path.encode(), 2147483545: (0).to_bytes(8, "little")}
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES, file_path=path, file_format=FileFormat.PARQUET,
        partition=victim.partition, record_count=1, file_size_in_bytes=local.stat().st_size, lower_bounds=bound,
        upper_bounds=bound, column_sizes={}, value_counts={}, null_value_counts={}, nan_value_counts={},
        split_offsets=[4], equality_ids=None, sort_order_id=None,
    )  # fmt: skip
    deletes.spec_id = table.spec().spec_id

    class DeletesWriter(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

    old = table.metadata.current_snapshot()
    assert old is not None
    number = 987654321
    manifest_path = f"file://{folder}/metadata/deletes-m0.avro"
    with DeletesWriter(table.spec(), table.schema(), table.io.new_output(manifest_path), number, "deflate") as writer:
        writer.add_entry(
            ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=deletes)
        )
    manifest = writer.to_manifest_file()
    list_path = f"file://{folder}/metadata/snap-deletes.avro"
    sequence = table.metadata.last_sequence_number + 1
    with write_manifest_list(
        2, table.io.new_output(list_path), number, old.snapshot_id, sequence, "deflate"
    ) as list_writer:
        list_writer.add_manifests([*old.manifests(table.io), manifest])
    snapshot = Snapshot(
        snapshot_id=number, parent_snapshot_id=old.snapshot_id, sequence_number=sequence, manifest_list=list_path,
        timestamp_ms=table.metadata.last_updated_ms + 1000, summary=Summary(Operation.DELETE),
        schema_id=table.schema().schema_id,
    )  # fmt: skip
    catalog = table.catalog
    assert isinstance(catalog, OneTable)
    updates = (
        AddSnapshotUpdate(snapshot=snapshot),
        SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=number),
    )
    catalog.commit_table(table, (), updates)
    return catalog.newest
