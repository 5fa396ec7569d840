"""Rows of inventory files, CSV, Parquet and ORC: a few thousand at a time, and only the columns that matter."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from crossload.ports.errors import Invalid, Unsupported

_ROWS = 2048
_BUFFER_BYTES = 2**18
_PLAIN = re.compile(r"[^a-z0-9]")
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column says what, by its plain name (lower case, letters and digits only); "" where none does. `etag` is
    the column that the store of this kind lists as its etag."""

    key: str
    size: str
    etag: str
    modified: str
    bucket: str = ""
    version: str = ""
    latest: str = ""
    marker: str = ""
    older: tuple[str, ...] = ()
    folder: str = ""
    md5: str = ""
    crc32c: str = ""
    key_has_bucket: bool = False


def csv_rows(
    data: IO[bytes], names: tuple[str, ...] | None, delimiter: str, columns: Columns, where: str
) -> Iterator[Row]:
    packed = data.read(2) == b"\x1f\x8b"
    data.seek(0)
    opened = cast("IO[bytes]", gzip.GzipFile(fileobj=data)) if packed else data
    try:
        with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
            for number, values in enumerate(csv.reader(text, delimiter=delimiter)):
                if not values:
                    continue
                if not number and columns.key in (head := tuple(map(plain, values))) and columns.size in head:
                    names = head
                    _expect(names, columns, where)
                    continue
                if names is None or len(values) != len(names):
                    raise Invalid(f"{where}: row {number + 1} has {len(values)} columns, not {len(names or ())}")
                if not number:
                    _expect(names, columns, where)
                yield dict(zip(names, values, strict=True))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise Invalid(f"{where} is no CSV of an inventory: {error}") from error


def _parquet_rows(data: IO[bytes], columns: Columns, where: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise Unsupported("Parquet needs pyarrow", hint="pip install 'crossload[move]'") from error
    try:
        # A buffer of its own for each column: else the columns of a row group, a million rows, are read whole.
        file: Any = parquet.ParquetFile(data, buffer_size=_BUFFER_BYTES, pre_buffer=False)

        def pieces(wanted: list[str]) -> Iterator[Any]:
            return file.iter_batches(_ROWS, columns=wanted, use_threads=False)

        yield from _batches(file.schema_arrow.names, pieces, columns, where)
    except (ArrowException, OSError) as error:
        raise Invalid(f"{where} is no Parquet of an inventory: {error}") from error


def _orc_rows(data: IO[bytes], columns: Columns, where: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, orc
    except ImportError as error:
        raise Unsupported(
            "ORC needs pyarrow", hint="pip install 'crossload[move]', or have it written as CSV"
        ) from error
    try:
        file: Any = orc.ORCFile(data)

        def stripes(wanted: list[str]) -> Iterator[Any]:
            for number in range(file.nstripes):
                stripe = file.read_stripe(number, columns=wanted)
                yield from (stripe.slice(begin, _ROWS) for begin in range(0, stripe.num_rows, _ROWS))

        yield from _batches(file.schema.names, stripes, columns, where)
    except (ArrowException, OSError) as error:
        raise Invalid(f"{where} is no ORC of an inventory: {error}") from error


TABLES: Mapping[str, Callable[[IO[bytes], Columns, str], Iterator[Row]]] = {
    "parquet": _parquet_rows,
    "orc": _orc_rows,
}


def _batches(
    names: list[str], read: Callable[[list[str]], Iterable[Any]], columns: Columns, where: str
) -> Iterator[Row]:
    """Only the columns that matter, a few thousand rows at a time."""
    found = {plain(name): name for name in names}
    _expect(tuple(found), columns, where)
    wanted = {name: found[name] for name in _named(columns) if name in found}
    for batch in read(list(wanted.values())):
        values = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in wanted.values()]
        for row in zip(*values, strict=True):
            yield dict(zip(wanted, row, strict=True))


def _named(columns: Columns) -> list[str]:
    said = (
        columns.key, columns.size, columns.etag, columns.modified, columns.bucket, columns.version, columns.latest,
        columns.marker, *columns.older, columns.folder, columns.md5, columns.crc32c,
    )  # fmt: skip
    return list(dict.fromkeys(filter(None, said)))


def _expect(names: tuple[str, ...], columns: Columns, where: str) -> None:
    """Without its etag an object cannot be told from the one before, and could not be copied safely."""
    missing = [name for name in (columns.key, columns.size, columns.etag) if name not in names]
    if missing:
        raise Unsupported(f"{where} has no column for {', '.join(missing)}", hint="add it to the inventory's fields")


def plain(name: Any) -> str:
    return _PLAIN.sub("", str(name).lower())
