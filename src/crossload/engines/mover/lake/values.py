"""What a table says, whatever files it is cut into: rows counted, one digest a column, one over whole rows."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ContentDigest:
    """Sums modulo 2^256 of SHA-256 over each value (`columns`) and each row (`whole`): no order of rows, files or row
    groups changes them. Proof against accidents, not against somebody who can choose values."""

    rows: int
    columns: dict[str, str]
    whole: str

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "columns": dict(sorted(self.columns.items())), "whole_rows": self.whole}


def digest_batches(names: Iterable[str], batches: Iterable[Any]) -> ContentDigest:
    """`batches` are Arrow record batches that all have the columns `names`."""
    wanted = list(names)
    sums = dict.fromkeys(wanted, 0)
    rows = whole = 0
    for batch in batches:
        values = [[canonical(value) for value in _plain(batch.column(name))] for name in wanted]
        for name, column in zip(wanted, values, strict=True):
            sums[name] += sum(_number(value) for value in column)
        whole += sum(_number(b"".join(_framed(cell) for cell in row)) for row in zip(*values, strict=True))
        rows += batch.num_rows
    return ContentDigest(rows, {name: _hex(total) for name, total in sums.items()}, _hex(whole))


def canonical(value: Any) -> bytes:
    """One byte form for each value: type by its first letter, so that 1, "1" and true differ. All NaNs are one."""
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i%d" % value
        case float():
            return b"dnan" if math.isnan(value) else b"d" + struct.pack(">d", value)
        case str():
            return b"s" + value.encode()
        case bytes():
            return b"b" + value
        case dict():
            return b"r" + b"".join(_framed(canonical(k)) + _framed(canonical(v)) for k, v in value.items())
        case list() | tuple():
            return b"l" + b"".join(_framed(canonical(item)) for item in value)
        case _:
            return b"o" + str(value).encode()  # decimals, dates


def _plain(column: Any) -> list[Any]:
    """Moments as whole numbers of their unit: Python's have no nanoseconds."""
    import pyarrow as arrow

    kind = column.type
    if arrow.types.is_timestamp(kind) or arrow.types.is_time64(kind) or arrow.types.is_duration(kind):
        column = column.cast(arrow.int64())
    return column.to_pylist()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def _hex(total: int) -> str:
    return f"{total % 2**256:064x}"
