"""Inventories in the three kinds that providers write, in exactly the columns that they document."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as arrow
import pytest
from memory_store import FEATURES, MemoryStore
from pyarrow import orc, parquet

from crossload.engines.mover import inventories
from crossload.engines.mover.inventories import Inventory, read_inventory
from crossload.engines.mover.listing import list_both
from crossload.estate.digest import Digest
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Journal
from crossload.ports.errors import DigestMismatch, Invalid, PreconditionFailed, Unsupported
from crossload.ports.store import ObjectInfo

# The full list of fields of each kind, in the order of its page in the providers' documentation.
SCHEMA = [
    "Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag", "StorageClass",
    "IsMultipartUploaded", "ReplicationStatus", "EncryptionStatus", "ObjectLockRetainUntilDate", "ObjectLockMode",
    "ObjectLockLegalHoldStatus", "IntelligentTieringAccessTier", "BucketKeyStatus", "ChecksumAlgorithm",
    "ObjectAccessControlList", "ObjectOwner",
]  # fmt: skip
SCHEMA_TABLE = """message s3.inventory { required binary bucket (UTF8); required binary key (UTF8);
 optional binary version_id (UTF8); optional boolean is_latest; optional boolean is_delete_marker; optional int64 size;
 optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8);
 optional binary storage_class (UTF8); optional boolean is_multipart_uploaded; }"""
SHARDS = [
    "project", "bucket", "name", "location", "size", "timeCreated", "timeDeleted", "updated", "storageClass", "etag",
    "retentionExpirationTime", "crc32c", "md5Hash", "generation", "metageneration", "contentType", "contentEncoding",
    "timeStorageClassUpdated",
]  # fmt: skip
RULE = [
    "Name", "Creation-Time", "Last-Modified", "ETag", "Content-Length", "Content-Type", "Content-MD5", "BlobType",
    "AccessTier", "Snapshot", "VersionId", "IsCurrentVersion", "Deleted", "hdi_isfolder", "Metadata",
]  # fmt: skip
ODD = ["a b", "a+b", "x//y", "é/中 %.txt", 'quote"d,comma', "line\nbreak", "a/", "%2F"]
WHEN = datetime(2024, 5, 1, 10, 0, 0, tzinfo=UTC)
MD5 = hashlib.md5(b"", usedforsecurity=False)


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore("a", FEATURES)
    made.ensure_bucket("inv")
    return made


def as_csv(rows: Sequence[Sequence[Any]], *, head: Sequence[str] = (), delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    if head:
        writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()


def as_table(rows: Sequence[Mapping[str, Any]], schema: Any) -> Any:
    return arrow.Table.from_pylist([dict(row) for row in rows], schema)


def as_parquet(table: Any) -> bytes:
    data = io.BytesIO()
    parquet.write_table(table, data, row_group_size=100)
    return data.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def keys(inventory: Inventory) -> list[str]:
    return [info.key for info in inventory]


# -- a manifest with a schema ----------------------------------------------------------------------------------------


def schema_row(key: str, **more: str) -> list[str]:
    said = {
        "Bucket": "data", "Key": quote_plus(key, safe="/"), "VersionId": "v1", "IsLatest": "true",
        "IsDeleteMarker": "false", "Size": "12", "LastModifiedDate": "2024-05-01T10:00:00.000Z",
        "ETag": "0" * 32, "StorageClass": "STANDARD", **more,
    }  # fmt: skip
    return [said.get(name, "") for name in SCHEMA]


def put_schema(
    store: MemoryStore,
    files: Mapping[str, bytes],
    *,
    form: str = "CSV",
    schema: str = ", ".join(SCHEMA),
    **changes: Any,
) -> str:
    for name, data in files.items():
        store.put("inv", name, data)
    told = {
        "sourceBucket": "data", "destinationBucket": "arn:aws:s3:::inv", "version": "2016-11-30",
        "creationTimestamp": "1714557600000", "fileFormat": form, "fileSchema": schema,
        "files": [{"key": name, "size": len(data), "MD5checksum": md5(data)} for name, data in files.items()],
        **changes,
    }  # fmt: skip
    text = json.dumps(told).encode()
    store.put("inv", "data/daily/2024-05-01T10-00Z/manifest.json", text)
    store.put("inv", "data/daily/2024-05-01T10-00Z/manifest.checksum", md5(text).encode())
    return "data/daily/2024-05-01T10-00Z/manifest.json"


def test_schema_manifest_with_csv(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "_PIECE_BYTES", 7)
    older = [
        schema_row("a b", VersionId="v0", IsLatest="false"),
        schema_row("gone", IsDeleteMarker="true", Size="", ETag=""),
    ]
    first = gzip.compress(as_csv([schema_row(key) for key in ODD] + older))
    second = gzip.compress(as_csv([schema_row(f"k{n}", VersionId="") for n in range(500)]))
    inventory = read_inventory(store, "inv", put_schema(store, {"d/1.csv.gz": first, "d/2.csv.gz": second}))
    assert keys(inventory) == [*ODD, *(f"k{n}" for n in range(500))]
    counts = inventory.counts
    assert (counts.objects, counts.older_versions, counts.delete_markers, counts.rows) == (508, 1, 1, 510)
    assert counts.size_bytes == 508 * 12
    assert next(iter(inventory)) == ObjectInfo("a b", 12, "0" * 32, "v1", WHEN.timestamp())
    assert keys(inventory) == [*ODD, *(f"k{n}" for n in range(500))], "it can be read again"


def test_only_what_was_asked_for(store: MemoryStore) -> None:
    data = gzip.compress(as_csv([schema_row("logs/a"), schema_row("img/b"), schema_row("logs/c", Bucket="other")]))
    inventory = read_inventory(store, "inv", put_schema(store, {"d/1.csv.gz": data}), prefix="logs/")
    assert keys(inventory) == ["logs/a"]
    assert inventory.counts.elsewhere == 2


def schema_table() -> Any:
    names = ["bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified_date", "e_tag"]
    kinds = [
        arrow.string(), arrow.string(), arrow.string(), arrow.bool_(), arrow.bool_(), arrow.int64(),
        arrow.timestamp("ms"), arrow.string(),
    ]  # fmt: skip
    rows = [("data", key, "v1", True, False, 12, WHEN.replace(tzinfo=None), "0" * 32) for key in ODD]
    rows += [
        ("data", "a b", "v0", False, False, 1, None, "1" * 32),
        ("data", "gone", "v", True, True, None, None, None),
    ]
    schema = arrow.schema(list(zip(names, kinds, strict=True)))
    return as_table([dict(zip(names, row, strict=True)) for row in rows], schema)


@pytest.mark.parametrize("form", ["Parquet", "ORC"])
def test_schema_manifest_with_tables(store: MemoryStore, form: str) -> None:
    """Keys are as they are: only CSV encodes them."""
    if form == "ORC":
        written = io.BytesIO()
        orc.write_table(schema_table(), written)
        data, schema = written.getvalue(), "struct<bucket:string,key:string,version_id:string>"
    else:
        data, schema = as_parquet(schema_table()), SCHEMA_TABLE
    inventory = read_inventory(store, "inv", put_schema(store, {f"d/1.{form.lower()}": data}, form=form, schema=schema))
    assert keys(inventory) == ODD
    assert (inventory.counts.older_versions, inventory.counts.delete_markers) == (1, 1)
    assert next(iter(inventory)) == ObjectInfo("a b", 12, "0" * 32, "v1", WHEN.timestamp())


def test_damage_is_found_before_any_row_is_given(store: MemoryStore) -> None:
    data = as_csv([schema_row(f"k{n}") for n in range(100)])
    manifest = put_schema(store, {"d/1.csv": data})
    store.flip("inv", "d/1.csv", len(data) // 2)
    given: list[str] = []
    with pytest.raises(DigestMismatch, match="should be md5"):
        given.extend(info.key for info in read_inventory(store, "inv", manifest))
    assert given == []
    store.put("inv", "d/1.csv", data + b"x")
    with pytest.raises(DigestMismatch, match="its manifest says"):
        keys(read_inventory(store, "inv", manifest))


def test_a_file_that_changes_while_it_is_read(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "_PIECE_BYTES", 100)
    data = as_csv([schema_row(f"k{n}") for n in range(100)])
    manifest = put_schema(store, {"d/1.csv": data})
    inventory = read_inventory(store, "inv", manifest)
    read = store.read

    def changing(bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if start == 500:
            store.put("inv", key, data[::-1])
        return read(bucket, key, start, length, if_match)

    monkeypatch.setattr(store, "read", changing)
    with pytest.raises(PreconditionFailed):
        keys(inventory)


def test_a_manifest_that_is_not_the_one_it_was(store: MemoryStore) -> None:
    manifest = put_schema(store, {"d/1.csv": as_csv([schema_row("k")])})
    store.flip("inv", manifest, 30)
    with pytest.raises(DigestMismatch):
        read_inventory(store, "inv", manifest)
    store.drop("inv", manifest.replace(".json", ".checksum"))
    with pytest.raises(Invalid, match="not complete"):
        read_inventory(store, "inv", manifest)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"form": "AVRO"}, Unsupported, "as avro"),
        ({"schema": "Bucket, Key, Size"}, Unsupported, "column for etag"),
        ({"sourceBucket": None, "fileFormat": 5}, Unsupported, "as 5"),
        ({"creationTimestamp": "soon"}, Invalid, "makes sense"),
        ({"schema": "Bucket, Key, Size, ETag"}, Invalid, "row 1 has 20 columns, not 4"),
        ({"form": "Parquet"}, Invalid, "no Parquet"),
        ({"form": "ORC"}, Invalid, "no ORC"),
    ],
)
def test_manifests_that_cannot_be_used(
    store: MemoryStore, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    data = as_csv([schema_row("k")[:3]] if changes.get("schema") == "Bucket, Key, Size" else [schema_row("k")])
    manifest = put_schema(store, {"d/1.csv": data}, **changes)
    with pytest.raises(error, match=words):
        keys(read_inventory(store, "inv", manifest))


def test_what_is_no_manifest(store: MemoryStore) -> None:
    for text in (b"[]", b"{}", b"no", b"\xff\x00"):
        store.put("inv", "manifest.json", text)
        with pytest.raises(Invalid, match="manifest"):
            read_inventory(store, "inv", "manifest.json")


def test_another_bucket_s_inventory_is_refused(store: MemoryStore) -> None:
    manifest = put_schema(store, {"d/1.csv": as_csv([schema_row("k")])})
    assert read_inventory(store, "inv", manifest, of="data").of == "data"
    with pytest.raises(Invalid, match="about data, not about mine"):
        read_inventory(store, "inv", manifest, of="mine")


def test_broken_rows_are_said(store: MemoryStore) -> None:
    for row, words in ((schema_row("k", Size="many"), "'k'"), (schema_row("k", LastModifiedDate="then"), "'k'")):
        manifest = put_schema(store, {"d/1.csv": as_csv([row])})
        with pytest.raises(Invalid, match=words):
            keys(read_inventory(store, "inv", manifest))
    cut = gzip.compress(as_csv([schema_row(f"k{n}") for n in range(100)]))[:-20]
    with pytest.raises(Invalid, match="no CSV"):
        keys(read_inventory(store, "inv", put_schema(store, {"d/1.csv.gz": cut})))


def test_its_age_is_told(store: MemoryStore) -> None:
    inventory = read_inventory(store, "inv", put_schema(store, {"d/1.csv": as_csv([schema_row("k")])}))
    assert inventory.age_seconds(WHEN.timestamp() + 7200) == 7200
    assert inventory.note(WHEN.timestamp() + 7200).startswith("the inventory of data is 2.0 h old")


# -- a manifest with shards ------------------------------------------------------------------------------------------


def shard_row(key: str, **more: str) -> list[str]:
    said = {
        "project": "1", "bucket": "data", "name": key, "location": "EU", "size": "12",
        "updated": "2024-05-01T10:00:00Z",
        "etag": "CJD=", "crc32c": "AAAAAA==", "md5Hash": base64.b64encode(MD5.digest()).decode(), "generation": "1714",
        "metageneration": "1", **more,
    }  # fmt: skip
    return [said.get(name, "") for name in SHARDS]


def put_shards(store: MemoryStore, files: Mapping[str, bytes], rows: int, options: Mapping[str, Any]) -> str:
    for name, data in files.items():
        store.put("inv", f"reports/{name}", data)
    told = {
        "report_config": {
            "name": "projects/p/locations/eu/reportConfigs/r",
            "object_metadata_report_options": {
                "metadata_fields": SHARDS, "storage_filters": {"bucket": "data"},
                "storage_destination_options": {"bucket": "inv", "destination_path": "reports"},
            },
            **options,
        },
        "records_processed": rows, "snapshot_time": "2024-05-01T10:00:00Z", "shards_count": len(files),
        "report_shards_file_names": list(files),
    }  # fmt: skip
    store.put("inv", "reports/r_2024-05-01T10:00_manifest.json", json.dumps(told).encode())
    return "reports/r_2024-05-01T10:00_manifest.json"


@pytest.mark.parametrize("head", [True, False], ids=["with header", "without"])
@pytest.mark.parametrize("delimiter", [",", "|"])
def test_shards_manifest_with_csv(store: MemoryStore, head: bool, delimiter: str) -> None:
    rows = [shard_row(key) for key in ODD]
    rows += [shard_row("old", timeDeleted="2024-04-01T00:00:00Z"), shard_row("k", bucket="other")]
    data = as_csv(rows, head=SHARDS if head else (), delimiter=delimiter)
    options = {"csv_options": {"record_separator": "\n", "delimiter": delimiter, "header_required": head}}
    inventory = read_inventory(store, "inv", put_shards(store, {"r_0.csv": data}, len(rows), options))
    assert inventory.of == "data"
    assert keys(inventory) == ODD, "keys are not encoded there"
    counts = inventory.counts
    assert (counts.older_versions, counts.elsewhere, counts.rows) == (1, 1, inventory.rows_promised)
    wanted = ObjectInfo(
        "a b", 12, "1714", "1714", WHEN.timestamp(), (Digest("crc32c", "00000000"), Digest("md5", MD5.hexdigest()))
    )
    assert next(iter(inventory)) == wanted, "the generation is what that store lists as an object's etag"


def test_shards_manifest_with_parquet(store: MemoryStore) -> None:
    names = ["bucket", "name", "size", "updated", "generation", "crc32c", "timeDeleted"]
    kinds = [
        arrow.string(), arrow.string(), arrow.int64(), arrow.timestamp("us", tz="UTC"), arrow.int64(), arrow.string(),
        arrow.timestamp("us", tz="UTC"),
    ]  # fmt: skip
    rows = [dict(zip(names, ("data", key, 12, WHEN, 1714, "AAAAAA==", None), strict=True)) for key in ODD]
    rows.append({**rows[0], "timeDeleted": WHEN})
    data = as_parquet(as_table(rows, arrow.schema(list(zip(names, kinds, strict=True)))))
    options = {"object_metadata_report_options": {"cloud_storage_filters": {"bucket": "data"}}}
    inventory = read_inventory(store, "inv", put_shards(store, {"r_0.parquet": data}, len(rows), options))
    found = list(inventory)
    assert [info.key for info in found] == ODD
    assert found[0] == ObjectInfo("a b", 12, "1714", "1714", WHEN.timestamp(), (Digest("crc32c", "00000000"),))


# -- a manifest with a rule ------------------------------------------------------------------------------------------


def put_rule(store: MemoryStore, files: Mapping[str, bytes], form: str, **changes: Any) -> str:
    for name, data in files.items():
        store.put("inv", name, data)
    told = {
        "destinationContainer": "inv", "endpoint": "https://account.example",
        "files": [{"blob": name, "size": len(data)} for name, data in files.items()],
        "inventoryCompletionTime": "2024-05-01T11:00:00Z", "inventoryStartTime": "2024-05-01T10:00:00Z",
        "ruleDefinition": {"filters": {"blobTypes": ["blockBlob"]}, "format": form, "objectType": "blob",
                           "schedule": "daily", "schemaFields": RULE},
        "ruleName": "all", "status": "Succeeded", "summary": {"objectCount": 1, "totalObjectSize": 1}, "version": "1.0",
        **changes,
    }  # fmt: skip
    text = json.dumps(told).encode()
    store.put("inv", "2024/05/01/10-00-00/all/all-manifest.json", text)
    store.put("inv", "2024/05/01/10-00-00/all/all-manifest.checksum", md5(text).encode())
    return "2024/05/01/10-00-00/all/all-manifest.json"


def rule_row(key: str, container: str = "data", **more: str) -> list[str]:
    said = {
        "Name": f"{container}/{key}", "Last-Modified": "2024-05-01T10:00:00.0000000Z", "ETag": "0x8DC6",
        "VersionId": "",
        "Content-Length": "12", "BlobType": "BlockBlob", "Content-MD5": base64.b64encode(MD5.digest()).decode(), **more,
    }  # fmt: skip
    return [said.get(name, more.get(name.replace("-", "_"), "")) for name in RULE]


def test_rule_manifest_with_csv(store: MemoryStore) -> None:
    rows = [rule_row(key, IsCurrentVersion="true") for key in ODD]
    rows += [
        rule_row("a b", IsCurrentVersion="false", VersionId="2024-04-01"), rule_row("k", container="other"),
        rule_row("s", Snapshot="2024-04-01T00:00:00Z"), rule_row("d", Deleted="true"),
        rule_row("f", hdi_isfolder="true", IsCurrentVersion="true"),
    ]  # fmt: skip
    data = as_csv(rows, head=RULE)
    inventory = read_inventory(
        store, "inv", put_rule(store, {"2024/05/01/10-00-00/all/all.csv": data}, "csv"), of="data"
    )
    assert keys(inventory) == ODD
    counts = inventory.counts
    assert (counts.older_versions, counts.delete_markers, counts.folders, counts.elsewhere) == (2, 1, 1, 1)
    wanted = ObjectInfo("a b", 12, "0x8DC6", "", WHEN.timestamp(), (Digest("md5", MD5.hexdigest()),))
    assert next(iter(inventory)) == wanted
    assert inventory.taken_at == WHEN.timestamp(), "when it was begun: what changed later may be missing"


def test_rule_manifest_with_parquet(store: MemoryStore) -> None:
    """Without versions there is no column for the current one."""
    names = ["Name", "Last-Modified", "ETag", "Content-Length", "hdi_isfolder"]
    kinds = [arrow.string(), arrow.timestamp("ms"), arrow.string(), arrow.int64(), arrow.bool_()]
    when = WHEN.replace(tzinfo=None)
    rows = [dict(zip(names, (f"data/{key}", when, "0x8DC6", 12, None), strict=True)) for key in ODD]
    data = as_parquet(as_table(rows, arrow.schema(list(zip(names, kinds, strict=True)))))
    inventory = read_inventory(store, "inv", put_rule(store, {"all.parquet": data}, "parquet"), of="data")
    assert list(inventory) == [ObjectInfo(key, 12, "0x8DC6", "", WHEN.timestamp()) for key in ODD]


def test_a_rule_that_is_not_done_or_not_about_objects(store: MemoryStore) -> None:
    files = {"all.csv": as_csv([rule_row("k")], head=RULE)}
    with pytest.raises(Invalid, match="Pending"):
        read_inventory(store, "inv", put_rule(store, files, "csv", status="Pending"), of="data")
    with pytest.raises(Unsupported, match="containers"):
        definition = {"format": "csv", "objectType": "container"}
        read_inventory(store, "inv", put_rule(store, files, "csv", ruleDefinition=definition), of="data")
    with pytest.raises(Invalid, match="which bucket"):
        read_inventory(store, "inv", put_rule(store, files, "csv"))


# -- into the comparison ---------------------------------------------------------------------------------------------


def test_an_inventory_is_a_source_to_compare_with(store: MemoryStore, tmp_path: Path) -> None:
    data = gzip.compress(as_csv([schema_row(f"k{n * 7919 % 3000:05d}") for n in range(3000)]))
    inventory = read_inventory(store, "inv", put_schema(store, {"d/1.csv.gz": data}), folder=tmp_path)
    store.ensure_bucket("data")
    target = MemoryStore("b", FEATURES)
    target.ensure_bucket("data")
    with Journal(tmp_path / "journal.db") as journal, Comparison(journal) as comparison:
        list_both(comparison, store, "data", target, "data", "k0", inventory=inventory)
        assert comparison.settle(home=False) == (3000, 3000 * 12)
        assert [todo.entry.key for _, todo in comparison.todo(0)] == [f"k{n:05d}" for n in range(1000)]
