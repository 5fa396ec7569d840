"""An Iceberg table under a new address: metadata, manifest lists and manifests written again with new paths.

Data files are moved by the ordinary mover and stay byte-equal; snapshot ids, sequence numbers and everything else the
metadata says stay as they are (Iceberg table specification, versions 1 to 3). Functions that change bytes do no I/O."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.lake.avro import AvroFile, read_avro, write_avro
from crossload.engines.mover.lake.files import Files
from crossload.engines.mover.lake.values import ContentDigest, digest_batches
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Refused, Unsupported

_FILE_PATH_ID = 2147483546  # the reserved field `file_path` of position deletes
_DELETED = 2  # a manifest entry's status: the file has left the table and need not exist any more
_VERSION_MAX = 3


@dataclass(frozen=True, slots=True)
class Relocation:
    """Prefixes and what takes their place, tried in order. Addresses below none of them are Refused: data that a table
    took in from elsewhere does not move with it."""

    pairs: tuple[tuple[str, str], ...]

    def path(self, text: str) -> str:
        found = self.try_path(text)
        if found is None:
            raise Refused(
                f"{text} is outside of {', '.join(old for old, _ in self.pairs)}",
                hint="name one more pair of old and new address for it, and move what lies there as well",
            )
        return found

    def try_path(self, text: str) -> str | None:
        for old, new in self.pairs:
            start = old.rstrip("/")
            if text == start or text.startswith(start + "/"):
                return new.rstrip("/") + text[len(start) :]
        return None


@dataclass(slots=True)
class IcebergReport:
    """`written` maps every file we wrote to its SHA-256; the mover must leave those alone. `data_files` are the files
    of live entries, at their new addresses; `rewritten_deletes` are those of them whose bytes changed."""

    metadata_location: str = ""
    snapshots: int = 0
    manifests: int = 0
    data_files: dict[str, int] = field(default_factory=dict)
    rewritten_deletes: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    stale_metadata: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "metadata_location": self.metadata_location, "snapshots": self.snapshots, "manifests": self.manifests,
            "data_files": len(self.data_files), "data_bytes": sum(self.data_files.values()),
            "rewritten_position_deletes": self.rewritten_deletes, "written": dict(sorted(self.written.items())),
            "metadata_log_missing": self.stale_metadata,
        }  # fmt: skip


def read_metadata(data: bytes, location: str) -> dict[str, Any]:
    """Raises Unsupported for a version that is not known, and for encrypted tables."""
    try:
        text = gzip.decompress(data) if _is_packed(location) else data
        metadata: dict[str, Any] = json.loads(text)
    except (OSError, ValueError) as error:
        raise Invalid(f"{location} is no table metadata: {error}") from error
    version = metadata.get("format-version")
    if not isinstance(version, int) or version > _VERSION_MAX:
        raise Unsupported(f"{location}: format version {version}", hint=f"versions up to {_VERSION_MAX} are carried")
    if metadata.get("encryption-keys"):
        raise Unsupported(f"{location}: an encrypted table", hint="its keys name paths that are part of the encryption")
    return metadata


def _is_packed(location: str) -> bool:
    return location.endswith((".gz.metadata.json", ".metadata.json.gz"))


def relocate_metadata(data: bytes, location: str, moves: Relocation) -> bytes:
    """metadata.json with new addresses; nothing else in it changes."""
    metadata = read_metadata(data, location)
    metadata["location"] = moves.path(metadata["location"])
    for snapshot in metadata.get("snapshots") or []:
        if "manifest-list" in snapshot:
            snapshot["manifest-list"] = moves.path(snapshot["manifest-list"])
        if "manifests" in snapshot:
            snapshot["manifests"] = [moves.path(path) for path in snapshot["manifests"]]
    for entry in metadata.get("metadata-log") or []:
        entry["metadata-file"] = moves.path(entry["metadata-file"])
    for kind in ("statistics", "partition-statistics"):
        for entry in metadata.get(kind) or []:
            entry["statistics-path"] = moves.path(entry["statistics-path"])
    properties = metadata.get("properties") or {}
    for name in properties:
        # Where the next writer puts its files: the old place would be written to again.
        if name.startswith("write.") and name.endswith("path"):
            properties[name] = moves.path(properties[name])
    text = json.dumps(metadata).encode()
    return gzip.compress(text, mtime=0) if _is_packed(location) else text


def relocate_manifest_list(data: bytes, moves: Relocation, lengths: Mapping[str, int]) -> bytes:
    """`lengths`: bytes of each manifest as it was written, by its new address."""
    file = read_avro(data)
    for record in file.records():
        if record.get("key_metadata") is not None:
            raise Unsupported(f"{record['manifest_path']}: an encrypted manifest")
        record["manifest_path"] = moves.path(record["manifest_path"])
        record["manifest_length"] = lengths[record["manifest_path"]]
    return write_avro(file)


def relocate_manifest(data: bytes, moves: Relocation, sizes: Mapping[str, int]) -> bytes:
    """`sizes`: bytes of the delete files that were written again, by their new addresses."""
    file = read_avro(data)
    for record in file.records():
        entry = record["data_file"]
        if entry.get("key_metadata") is not None:
            raise Unsupported(f"{entry['file_path']}: an encrypted file")
        entry["file_path"] = moves.path(entry["file_path"])
        if entry["file_path"] in sizes:
            entry["file_size_in_bytes"] = sizes[entry["file_path"]]
            # They speak of the bytes that were.
            entry |= {name: None for name in ("split_offsets", "column_sizes") if name in entry}
        if entry.get("referenced_data_file"):
            entry["referenced_data_file"] = moves.path(entry["referenced_data_file"])
        if entry.get("content") == 1:
            for name in ("lower_bounds", "upper_bounds"):
                if entry.get(name):
                    entry[name] = _bounds(entry[name], moves)
    return write_avro(file)


def _bounds(pairs: list[dict[str, Any]], moves: Relocation) -> list[dict[str, Any]]:
    """A bound on paths is a path too. One that was cut off is left out: no bound is a true bound, a wrong one hides
    deletes from readers."""
    kept: list[dict[str, Any]] = []
    for pair in pairs:
        if pair["key"] != _FILE_PATH_ID:
            kept.append(pair)
            continue
        try:
            found = moves.try_path(pair["value"].decode())
        except UnicodeDecodeError:
            found = None
        if found is not None:
            kept.append({**pair, "value": found.encode()})
    return kept


def relocate_position_deletes(data: bytes, moves: Relocation) -> bytes:
    """A Parquet file of position deletes names the data files its rows are in. Order and field ids stay."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(data))
    except arrow.ArrowInvalid as error:
        raise Invalid(f"damaged position deletes: {error}") from error
    index = table.schema.get_field_index("file_path")
    if index < 0:
        raise Invalid("a position delete file without a column file_path")
    column = table.column(index)
    paths = {path: moves.path(path) for path in column.unique().to_pylist()}
    renamed = arrow.array([paths[path] for path in column.to_pylist()], type=column.type)
    table = table.set_column(index, table.schema.field(index), renamed)
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd", store_schema=False)
    return out.getvalue()


@dataclass(slots=True)
class _Table:
    """One table's files, each read once."""

    metadata: dict[str, Any]
    lists: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    live: dict[str, dict[str, Any]] = field(default_factory=dict)


def _collect(source: Files, location: str) -> _Table:
    table = _Table(read_metadata(source.read(location), location))
    for snapshot in table.metadata.get("snapshots") or []:
        paths = list(snapshot.get("manifests") or [])
        if "manifest-list" in snapshot:
            data = table.lists.setdefault(snapshot["manifest-list"], source.read(snapshot["manifest-list"]))
            paths += [record["manifest_path"] for record in read_avro(data).records()]
        for path in paths:
            if path in table.manifests:
                continue
            table.manifests[path] = source.read(path)
            for entry in _live(read_avro(table.manifests[path])):
                table.live[entry["file_path"]] = entry
    return table


def _live(manifest: AvroFile) -> Iterator[dict[str, Any]]:
    for record in manifest.records():
        if record["status"] != _DELETED:
            yield record["data_file"]


def relocate_iceberg(
    source: Files, target: Files, metadata_location: str, pairs: Mapping[str, str],
    say: Callable[[str], None] = lambda text: None,
) -> IcebergReport:  # fmt: skip
    """Write the table's metadata at the target, metadata.json last: until it is there, so is no table.

    `pairs` maps old addresses to new ones (the same place may be written in several ways). The data files must be at
    the target already: NotFound names those that are not. Refused or Unsupported before anything is written when a
    path leads elsewhere, or a delete file cannot be written again."""
    moves = Relocation(tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0]))))
    table = _collect(source, metadata_location)
    report = IcebergReport(moves.path(metadata_location), len(table.metadata.get("snapshots") or []))
    report.manifests = len(table.manifests)
    deletes = _position_deletes(table)
    for path, entry in table.live.items():
        report.data_files[moves.path(path)] = int(entry["file_size_in_bytes"])
    _all_there(target, {moves.path(p): e["file_size_in_bytes"] for p, e in table.live.items() if p not in deletes})

    def put(uri: str, data: bytes) -> int:
        target.write(uri, data)
        digest = hashlib.sha256(data).hexdigest()
        if hashlib.sha256(target.read(uri)).hexdigest() != digest:
            raise DigestMismatch(f"{uri} does not read back as it was written")
        report.written[uri] = digest
        return len(data)

    sizes: dict[str, int] = {}
    for path in deletes:
        new = moves.path(path)
        sizes[new] = put(new, relocate_position_deletes(source.read(path), moves))
        report.data_files[new] = sizes[new]
        report.rewritten_deletes.append(new)
    lengths = {
        moves.path(p): put(moves.path(p), relocate_manifest(d, moves, sizes)) for p, d in table.manifests.items()
    }
    for path, data in table.lists.items():
        put(moves.path(path), relocate_manifest_list(data, moves, lengths))
    for entry in table.metadata.get("metadata-log") or []:
        path = entry["metadata-file"]
        try:
            put(moves.path(path), relocate_metadata(source.read(path), path, moves))
        except NotFound:
            report.stale_metadata.append(path)
            say(f"{path} is in the metadata log and not there any more")
    put(report.metadata_location, relocate_metadata(source.read(metadata_location), metadata_location, moves))
    return report


def _position_deletes(table: _Table) -> list[str]:
    paths: list[str] = []
    for path, entry in table.live.items():
        if entry.get("content", 0) != 1:
            continue
        if entry["file_format"].upper() != "PARQUET":
            raise Unsupported(
                f"{path}: position deletes in {entry['file_format']} name data files by their old paths",
                hint="compact the table at the source (rewrite data files), so that no deletes are left, and try again",
            )
        paths.append(path)
    return paths


def _all_there(target: Files, wanted: Mapping[str, int]) -> None:
    wrong = [path for path, size in wanted.items() if target.size(path) != size]
    if wrong:
        listed = ", ".join(sorted(wrong)[:5])
        raise NotFound(
            f"{len(wrong)} of {len(wanted)} data files are not at the target, or not in their size: {listed}",
            hint="move the data files first",
        )


def digest_iceberg(metadata_location: str) -> ContentDigest:
    """Read a table in a folder through another reader than ours, and digest what it says."""
    from pyiceberg.table import StaticTable

    reader = StaticTable.from_metadata(metadata_location).scan().to_arrow_batch_reader()
    return digest_batches(reader.schema.names, reader)
