"""An index as files: a folder of Parquet parts, and `index.json` once all of them are there.

Columns are `id`, `values` (float32, byte stream split) and `metadata` (canonical JSON), zstd-compressed. Every part is
written whole, so a run that was killed goes on after the last one: parts are the resume point. `index.json` holds what
is known of the index, the digests of all rows, and each part's sha256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crossload.engines.mover.vectors.digests import Hasher, IndexDigest, IndexSource, digest_index
from crossload.engines.mover.vectors.moving import move_index
from crossload.estate.whole import write_whole
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Unsupported
from crossload.ports.vectors import Block, IndexInfo, Vectors

FORMAT = "crossload-index-1"
_PART_BYTES = 64 * 2**20  # of vectors: at most this much is read again after a kill
_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """`resumed_rows` were there from a run before this one; `written_rows` came now."""

    info: IndexInfo
    digest: IndexDigest
    parts: int
    size_bytes: int
    resumed_rows: int
    written_rows: int


def export_index(source: IndexSource, name: str, folder: Path, *, part_rows: int | None = None) -> Exported:
    """Write an index into `folder`, or finish what a killed run began there. Holds one block in memory.

    Rows of two runs are two looks at the source: after a resume the source's digest is taken once more, and when it is
    not that of the files, all is written anew. Raises Unsupported without pyarrow, NotFound without the index."""
    _arrow()
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(".part-*"):
        draft.unlink()
    info = source.describe(name)
    rows = part_rows or max(1, _PART_BYTES // (4 * info.dimension))
    kept, hasher, last = _kept(folder, info, source.place)
    resumed = hasher.digest().rows
    (folder / "index.json").unlink(missing_ok=True)
    with _Writer(folder, _schema(info, source.place), rows, len(kept)) as writer:
        for block in hasher.passing(source.export(name, after=last)):
            writer.add(block)
    digest = hasher.digest()
    if resumed and digest_index(source, name) != digest:
        _clear(folder)
        return export_index(source, name, folder, part_rows=part_rows)
    parts = _parts(folder)
    said = {
        "format": FORMAT, "source": source.place, **_told(replace(info, rows=digest.rows)), **digest.to_json(),
        "parts": [{"name": part.name, "size_bytes": part.stat().st_size, "sha256": _sha256(part)} for part in parts],
    }  # fmt: skip
    write_whole(folder / "index.json", json.dumps(said, indent=2, sort_keys=True) + "\n", durable=True)
    size = sum(part.stat().st_size for part in parts)
    return Exported(replace(info, rows=digest.rows), digest, len(parts), size, resumed, digest.rows - resumed)


def import_index(folder: Path, target: Vectors, name: str = "") -> tuple[IndexInfo, IndexDigest]:
    """Load files into a store, under the name they were exported as, or another. The store keeps what it had unless
    every row came and all digests are those of `index.json`: raises DigestMismatch otherwise."""
    files = ParquetIndex(folder)
    return move_index(files, target, name or files.name)


class ParquetIndex:
    """A finished folder, read like a store. Raises NotFound where there is no `index.json`: no export ended there."""

    def __init__(self, folder: Path) -> None:
        try:
            self._said: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if self._said["format"] != FORMAT:
                raise Invalid(f"{folder}: files of the form {self._said['format']!r}", hint=f"wanted {FORMAT!r}")
            self.info = _info(self._said)
            self.digest = IndexDigest.from_json(self._said)
        except FileNotFoundError as error:
            raise NotFound(f"{folder} holds no finished index", hint="run the export again: it goes on") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"{folder / 'index.json'} cannot be read: {error}") from error
        self.name, self.place, self.source = self.info.name, str(folder), str(self._said["source"])
        self._folder = folder

    def describe(self, name: str) -> IndexInfo:
        """The index under whatever name it is to have."""
        return replace(self.info, name=name)

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        """Raises DigestMismatch when a part is not the one that was written, before any of its rows is given, and at
        the end when the rows together are not those that were exported."""
        hasher = Hasher()
        for part in self._said["parts"]:
            path = self._folder / part["name"]
            if not path.exists() or _sha256(path) != part["sha256"]:
                raise DigestMismatch(f"{path} is not the file that was exported", hint="export the index again")
            for block in _read(path):
                hasher.feed(block)
                begin = sum(1 for held in block.ids if held <= after)
                if begin < len(block.ids):
                    yield _from(block, begin)
        if hasher.digest() != self.digest:
            raise DigestMismatch(f"{self._folder}: the rows are not those of index.json", hint="export the index again")


class _Writer:
    """Rows into parts of `rows` rows. A part takes its name when it is complete and on disk."""

    def __init__(self, folder: Path, schema: Any, rows: int, number: int) -> None:
        self._folder, self._schema, self._rows, self._number = folder, schema, rows, number
        self._writer: Any = None
        self._filled = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        if kind is None:
            self._close()
        else:  # half a part is no part
            self._writer.close()
            self._draft.unlink(missing_ok=True)

    def add(self, block: Block) -> None:
        """One block is one row group, or the piece of it that still goes into this part."""
        begin = 0
        while begin < len(block.ids):
            end = min(len(block.ids), begin + self._rows - self._filled)
            piece = _from(block, begin, end)
            self._writer = self._writer or self._opened()
            self._writer.write_batch(_batch(piece, self._schema))
            self._filled += end - begin
            begin = end
            if self._filled >= self._rows:
                self._close()

    @property
    def _draft(self) -> Path:
        return self._folder / f".part-{self._number:06d}.parquet"

    def _opened(self) -> Any:
        from pyarrow import parquet

        make: Any = parquet.ParquetWriter
        return make(
            self._draft, self._schema, compression="zstd", compression_level=_LEVEL, use_dictionary=False,
            column_encoding={"values.list.element": "BYTE_STREAM_SPLIT"}, write_statistics=["id"],
        )  # fmt: skip

    def _close(self) -> None:
        self._writer.close()
        with self._draft.open("rb") as written:
            os.fsync(written.fileno())
        self._draft.replace(self._folder / f"part-{self._number:06d}.parquet")
        self._writer, self._filled, self._number = None, 0, self._number + 1


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise Unsupported("Parquet needs pyarrow", hint="pip install 'crossload[move]'") from error
    return pyarrow


def _told(info: IndexInfo) -> dict[str, Any]:
    return {**asdict(info), "params": dict(info.params)}


def _info(said: dict[str, Any]) -> IndexInfo:
    return IndexInfo(**{name: said[name] for name in IndexInfo.__dataclass_fields__})


def _schema(info: IndexInfo, place: str) -> Any:
    pa = _arrow()
    told = {"format": FORMAT, "source": place, **_told(replace(info, rows=-1))}  # rows are counted at the end
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.field("element", pa.float32(), nullable=False), info.dimension), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
    return pa.schema(fields, metadata={"crossload": json.dumps(told, sort_keys=True)})


def _batch(block: Block, schema: Any) -> Any:
    pa = _arrow()
    kind = schema.field("values").type
    flat = pa.Array.from_buffers(pa.float32(), len(block.vectors) // 4, [None, pa.py_buffer(block.vectors)])
    values = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    texts = pa.array([payload.decode() for payload in block.payloads], pa.string())
    return pa.record_batch([pa.array(block.ids, pa.string()), values, texts], schema=schema)


def _read(path: Path) -> Iterator[Block]:
    """A part's row groups, one at a time."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            for batch in file.read_row_group(group).to_batches():
                values = batch.column("values")
                flat = values.flatten()
                data = memoryview(flat.buffers()[1])[4 * flat.offset : 4 * (flat.offset + len(flat))]
                payloads = [text.encode() for text in batch.column("metadata").to_pylist()]
                yield Block(batch.column("id").to_pylist(), bytes(data), payloads)


def _from(block: Block, begin: int, end: int | None = None) -> Block:
    end = len(block.ids) if end is None else end
    if (begin, end) == (0, len(block.ids)):
        return block
    width = len(block.vectors) // len(block.ids)
    return Block(block.ids[begin:end], block.vectors[begin * width : end * width], block.payloads[begin:end])


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _clear(folder: Path) -> None:
    for path in [folder / "index.json", *_parts(folder), *folder.glob(".part-*")]:
        path.unlink(missing_ok=True)


def _kept(folder: Path, info: IndexInfo, place: str) -> tuple[Sequence[Path], Hasher, str]:
    """The parts of a run before this one that are still good, digested, and the last id in them. Parts of another
    index, or of this one as it no longer is, are removed."""
    from pyarrow import ArrowException, parquet

    hasher, last = Hasher(), ""
    parts = _parts(folder)
    wanted = _schema(info, place)
    try:
        for number, part in enumerate(parts):
            if part.name != f"part-{number:06d}.parquet" or not parquet.read_schema(part).equals(wanted, True):
                raise Invalid(f"{part.name} belongs to another export")
            for block in _read(part):
                hasher.feed(block)
                last = block.ids[-1]
    except (Invalid, ArrowException, OSError):
        _clear(folder)
        return [], Hasher(), ""
    return parts, hasher, last


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
