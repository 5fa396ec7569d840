"""Inventory files instead of a listing: what the provider writes down about a bucket once a day, read in place.

A listing of 10^9 objects is 10^6 requests; an inventory of them is a few hundred files. Three kinds are known, by the
shape of their manifests (which fields the providers document, see docs/listing.md):

schema manifest   `fileSchema` and `files` with a key, a size and an MD5 each; CSV (gzip, no header), Parquet, ORC
shards manifest   `report_shards_file_names` beside the manifest; CSV or Parquet
rule manifest     `ruleDefinition` and `files` with a blob and a size each; CSV with a header, or Parquet

An inventory is hours or days old: a hint, never the truth. Whoever copies from one must list the source once more."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote_plus

from crossload.engines.mover.inventory_rows import TABLES, Columns, Row, csv_rows, plain
from crossload.estate.digest import Digest
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Unsupported
from crossload.ports.store import ObjectInfo, Store

_PIECE_BYTES = 8 * 2**20
_MANIFEST_BYTES_MAX = 64 * 2**20


_SCHEMA = Columns(
    "key", "size", "etag", "lastmodifieddate", "bucket", "versionid", latest="islatest", marker="isdeletemarker"
)
_SHARDS = Columns(
    "name", "size", "generation", "updated", "bucket", "generation", older=("timedeleted", "softdeletetime"),
    md5="md5hash", crc32c="crc32c",
)  # fmt: skip
_RULE = Columns(
    "name", "contentlength", "etag", "lastmodified", "", "versionid", latest="iscurrentversion", marker="deleted",
    older=("snapshot",), folder="hdiisfolder", md5="contentmd5", key_has_bucket=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InventoryFile:
    """One data file. `size_bytes` and `md5` are what the manifest says, None and "" where it says nothing."""

    key: str
    size_bytes: int | None = None
    md5: str = ""


@dataclass(slots=True)
class Counts:
    """What was read. `older_versions`, `delete_markers` (deleted objects, too), `folders` and `elsewhere` (objects of
    other buckets or prefixes) were left out."""

    objects: int = 0
    size_bytes: int = 0
    rows: int = 0
    older_versions: int = 0
    delete_markers: int = 0
    folders: int = 0
    elsewhere: int = 0


@dataclass(slots=True)
class Inventory:
    """Iterate over it for the objects, in no order; as often as you like, each time it is read anew and counted anew.

    `taken_at` is when the provider began to write it, seconds since the epoch; `rows_promised` what the manifest says
    about its rows, None when it says nothing. Iterating raises DigestMismatch for a damaged file, before any of its
    rows is given, Invalid for one that makes no sense, Unsupported for a form or a choice of columns that cannot be
    used, and what the store raises."""

    store: Store
    bucket: str
    manifest: str
    of: str
    prefix: str
    form: str
    taken_at: float
    columns: Columns
    files: tuple[InventoryFile, ...]
    names: tuple[str, ...] | None
    delimiter: str = ","
    key_encoded: bool = False
    rows_promised: int | None = None
    folder: Path | None = None
    counts: Counts = field(default_factory=Counts)

    def age_seconds(self, now: float | None = None) -> float:
        return max(0.0, (time.time() if now is None else now) - self.taken_at)

    def note(self, now: float | None = None) -> str:
        """One line for people, to be said before the copy."""
        hours = self.age_seconds(now) / 3600
        return (
            f"the inventory of {self.of} is {hours:.1f} h old: what changed since is not in it, "
            "and comes over with the next pass, which lists the source itself"
        )

    def __iter__(self) -> Iterator[ObjectInfo]:
        self.counts = counts = Counts()
        for file in self.files:
            with self._spooled(file) as data:
                for row in self._rows(file, data):
                    counts.rows += 1
                    info = self._object(row, counts)
                    if info is not None:
                        counts.objects += 1
                        counts.size_bytes += info.size_bytes
                        yield info

    @contextmanager
    def _spooled(self, file: InventoryFile) -> Iterator[IO[bytes]]:
        """The file on disk, whole and checked: Parquet is read from its end, and a digest is known at the end only."""
        where = f"{self.bucket}/{file.key}"
        info, _ = self.store.head(self.bucket, file.key)
        if file.size_bytes is not None and info.size_bytes != file.size_bytes:
            raise DigestMismatch(f"{where} has {info.size_bytes} bytes, its manifest says {file.size_bytes}")
        stored = info.digest("md5")
        wanted = file.md5 or (stored.hex if stored else "")
        md5 = hashlib.md5(usedforsecurity=False)
        with tempfile.TemporaryFile(dir=self.folder) as data:
            buffer = memoryview(bytearray(min(_PIECE_BYTES, max(1, info.size_bytes))))
            at = 0
            while at < info.size_bytes:
                piece = buffer[: min(len(buffer), info.size_bytes - at)]
                count = self.store.read_into(self.bucket, file.key, at, piece, if_match=info.etag)
                if not count:
                    raise DigestMismatch(f"{where} ends after {at} of {info.size_bytes} bytes")
                md5.update(piece[:count])
                data.write(piece[:count])
                at += count
            if wanted and md5.hexdigest() != wanted.lower():
                raise DigestMismatch(f"{where} is md5:{md5.hexdigest()}, and should be md5:{wanted}")
            data.seek(0)
            yield data

    def _rows(self, file: InventoryFile, data: IO[bytes]) -> Iterator[Row]:
        where = f"{self.bucket}/{file.key}"
        columns = self.columns
        if self.form == "csv":
            yield from csv_rows(data, self.names, self.delimiter, columns, where)
        else:
            yield from TABLES[self.form](data, columns, where)

    def _object(self, row: Row, counts: Counts) -> ObjectInfo | None:
        columns = self.columns
        key = row[columns.key]
        key = key.decode() if isinstance(key, bytes) else str(key)
        if self.key_encoded:
            key = unquote_plus(key)
        bucket = str(row.get(columns.bucket) or "") if columns.bucket else ""
        if columns.key_has_bucket:
            bucket, _, key = key.partition("/")
        if (bucket and bucket != self.of) or not key.startswith(self.prefix):
            counts.elsewhere += 1
        elif _true(row.get(columns.marker)):
            counts.delete_markers += 1
        elif any(row.get(name) not in (None, "") for name in columns.older) or _false(row, columns.latest):
            counts.older_versions += 1
        elif columns.folder and _true(row.get(columns.folder)):
            counts.folders += 1
        else:
            try:
                return ObjectInfo(
                    key, int(row[columns.size]), str(row[columns.etag]).strip('"'),
                    str(row.get(columns.version) or ""), _seconds(row.get(columns.modified)), _digests(row, columns),
                )  # fmt: skip
            except (TypeError, ValueError) as error:
                raise Invalid(f"the inventory of {self.of} says about {key!r}: {error}") from error
        return None


def read_inventory(
    store: Store, bucket: str, manifest: str, *, of: str = "", prefix: str = "", folder: Path | None = None
) -> Inventory:
    """Open an inventory by the key of its manifest. `of` is the bucket that it is about ("" where the manifest names
    it); `folder` takes one data file at a time (else the system's folder for temporary files).

    Raises DigestMismatch when the manifest is not the one its checksum file is about, Invalid when it is no manifest,
    not complete or about another bucket, Unsupported for a form that cannot be read."""
    info, _ = store.head(bucket, manifest)
    if info.size_bytes > _MANIFEST_BYTES_MAX:
        raise Invalid(f"{bucket}/{manifest} is no manifest: it has {info.size_bytes} bytes")
    text = store.read(bucket, manifest, if_match=info.etag)
    try:
        told: Any = json.loads(text)
        for shape, read in _SHAPES.items():
            if isinstance(told, dict) and shape in told:
                inventory = read(
                    _Opening(store, bucket, manifest, text, of, prefix, folder), cast("dict[str, Any]", told)
                )
                break
        else:
            raise Invalid(f"{bucket}/{manifest} is no manifest of an inventory", hint="name its manifest.json")
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{bucket}/{manifest} is no manifest that makes sense: {error!r}") from error
    if inventory.form not in ("csv", *TABLES):
        raise Unsupported(f"inventories as {inventory.form} are not read", hint="have it written as CSV or Parquet")
    if not inventory.of:
        raise Invalid(f"{bucket}/{manifest} does not say which bucket it is about", hint="name the bucket")
    return inventory


# -- the three shapes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Opening:
    store: Store
    bucket: str
    manifest: str
    text: bytes
    of: str
    prefix: str
    folder: Path | None

    def check(self) -> None:
        """The checksum beside the manifest is written last: without it the inventory is not complete."""
        key = f"{self.manifest.removesuffix('.json')}.checksum"
        try:
            said = self.store.read(self.bucket, key).decode("ascii", "replace").strip()
        except NotFound as error:
            raise Invalid(
                f"{self.bucket}/{self.manifest} has no checksum beside it ({key}): it is not complete",
                hint="wait for it, or name the one before",
            ) from error
        found = hashlib.md5(self.text, usedforsecurity=False)
        if found.hexdigest() not in (said.lower(), _base64_hex(said)):
            raise DigestMismatch(f"{self.bucket}/{self.manifest} is md5:{found.hexdigest()}, {key} says {said}")

    def made(self, **more: Any) -> Inventory:
        return Inventory(
            store=self.store, bucket=self.bucket, manifest=self.manifest, prefix=self.prefix, folder=self.folder, **more
        )

    def about(self, bucket: str) -> str:
        if self.of and bucket and bucket != self.of:
            raise Invalid(f"{self.bucket}/{self.manifest} is about {bucket}, not about {self.of}")
        return self.of or bucket


def _by_schema(opening: _Opening, told: Mapping[str, Any]) -> Inventory:
    opening.check()
    form = str(told["fileFormat"]).lower()
    names = tuple(plain(name) for name in str(told["fileSchema"]).split(",")) if form == "csv" else None
    return opening.made(
        of=opening.about(str(told["sourceBucket"])), form=form, taken_at=int(told["creationTimestamp"]) / 1000,
        columns=_SCHEMA, names=names, key_encoded=form == "csv",
        files=tuple(InventoryFile(item["key"], int(item["size"]), item["MD5checksum"]) for item in told["files"]),
    )  # fmt: skip


def _by_shards(opening: _Opening, told: Mapping[str, Any]) -> Inventory:
    """The names of the columns and the delimiter are in the configuration that the manifest repeats."""
    folder = opening.manifest[: opening.manifest.rfind("/") + 1]
    shards = [str(name).rpartition("/")[2] for name in told["report_shards_file_names"]]
    fields = _said(told, "metadatafields")
    about = _said(told, "storagefilters") or _said(told, "cloudstoragefilters")
    promised = told.get("records_processed")
    return opening.made(
        of=opening.about(str(_said(about, "bucket") or "")),
        columns=_SHARDS, delimiter=str(_said(told, "delimiter") or ","),
        form="parquet" if any(name.endswith(".parquet") for name in shards) else "csv",
        taken_at=_moment(told["snapshot_time"]), files=tuple(InventoryFile(folder + name) for name in shards),
        names=tuple(map(plain, fields)) if isinstance(fields, list) else None,
        rows_promised=int(promised) if promised is not None else None,
    )  # fmt: skip


def _by_rule(opening: _Opening, told: Mapping[str, Any]) -> Inventory:
    if told["status"] != "Succeeded":
        raise Invalid(f"{opening.bucket}/{opening.manifest} is not complete: {told['status']}")
    opening.check()
    rule = told["ruleDefinition"]
    if str(rule.get("objectType", "blob")).lower() != "blob":
        raise Unsupported(f"an inventory of {rule['objectType']}s says nothing about objects")
    return opening.made(
        of=opening.of, form=str(rule["format"]).lower(), taken_at=_moment(told["inventoryStartTime"]), columns=_RULE,
        names=None, files=tuple(InventoryFile(item["blob"], int(item["size"])) for item in told["files"]),
    )  # fmt: skip


_SHAPES: Mapping[str, Callable[[_Opening, Mapping[str, Any]], Inventory]] = {
    "fileSchema": _by_schema,
    "report_shards_file_names": _by_shards,
    "ruleDefinition": _by_rule,
}


def _said(told: Any, name: str) -> Any:
    """The first value of that plain name, at any depth."""
    if isinstance(told, dict):
        for key, value in cast("dict[str, Any]", told).items():
            found = value if plain(key) == name else _said(value, name)
            if found is not None:
                return found
    return None


# -- values ------------------------------------------------------------------------------------------------------------


def _true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _false(row: Row, column: str) -> bool:
    """There is such a column, and it does not say true."""
    return bool(column) and column in row and not _true(row[column])


def _digests(row: Row, columns: Columns) -> tuple[Digest, ...]:
    pairs = (("crc32c", row.get(columns.crc32c)), ("md5", row.get(columns.md5)))
    return tuple(Digest(name, _base64_hex(str(value))) for name, value in pairs if value)


def _base64_hex(text: str) -> str:
    try:
        return b64decode(text, validate=True).hex()
    except ValueError:
        return ""


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        return _moment(value) if value else 0.0
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    return 0.0 if value is None else float(value) / 1000


@lru_cache(maxsize=4096)
def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
