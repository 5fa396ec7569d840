"""Rows of a vector table as COPY BINARY carries them, cut into blocks without decoding the columns.

Format: PostgreSQL manual, COPY (signature, then per row an int16 count and per field an int32 length with its bytes, -1
for NULL), one message per row (manual, protocol flow). pgvector's vector_send: int16 dimension, int16 0, dimension x
float4 big-endian. The first two fields of every row are ours: the payload as jsonb and the id as text. What follows is
the row itself, and another server takes it byte for byte."""

from __future__ import annotations

import json
import re
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.vectors import Block, block_rows, payload_bytes

WIRE = "copy-binary-1"
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_BLOCK_BYTES_MAX = 8 * 2**20
_length = struct.Struct(">i").unpack_from
# Types as format_type() says them. What is named otherwise (other schemas, quotes) is not relayed.
_PLAIN_TYPE = re.compile(r"[a-z][a-z0-9_ ]*(\(\d+(,\d+)?\))?( [a-z ]+)?(\[\])?")


@dataclass(frozen=True, slots=True)
class Column:
    """`type` is what format_type() says. `plain`: the type is one that every server knows."""

    name: str
    type: str
    not_null: bool
    plain: bool


def columns_of(db: psycopg.Connection[Any], table: str) -> list[Column]:
    """All columns of a table in `public`, in the order in which the table has them."""
    query = """select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                      t.typtype = 'b' and (t.typnamespace = 'pg_catalog'::regnamespace or t.typname = 'vector')
               from pg_attribute a join pg_class c on c.oid = a.attrelid
               join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = c.relnamespace
               where c.relname = %s and n.nspname = 'public' and a.attnum > 0 and not a.attisdropped
               order by a.attnum"""
    return [Column(*row) for row in db.execute(query, (table,))]


def form_of(columns: Sequence[Column], vector: str) -> str:
    """The wire form of a table, which says how to make its like; "" when another server may not read it."""
    if not all(column.plain for column in columns):
        return ""
    shape = [[column.name, column.type, column.not_null] for column in columns]
    return json.dumps({"wire": WIRE, "vector": vector, "columns": shape})


def table_of(form: str, dimension: int) -> tuple[str, list[Column]] | None:
    """(vector column, columns) of a wire form; None when this is no table of ours to make: then rows are read."""
    try:
        said = json.loads(form)
        columns = [Column(str(name), str(kind), bool(needed), True) for name, kind, needed in said["columns"]]
        known = said["wire"] == WIRE and all(_PLAIN_TYPE.fullmatch(column.type) for column in columns)
    except (ValueError, KeyError, TypeError):
        return None
    kinds = {column.name: column.type for column in columns}
    if not known or "id" not in kinds or kinds.get(said["vector"]) != f"vector({dimension})":
        return None
    return said["vector"], columns


def in_wire_order(columns: Sequence[Column], vector: str) -> list[sql.Identifier]:
    """The id, the vector, and then the rest."""
    rest = [column.name for column in columns if column.name not in ("id", vector)]
    return [sql.Identifier(name) for name in ("id", vector, *rest)]


def read_blocks(copy: Iterable[Any], dimension: int, form: str) -> Iterator[Block]:
    """COPY's messages as blocks; with a `form`, every row also as the other server takes it."""
    width, rows_max = 4 * dimension, block_rows(dimension)
    head = struct.pack(">h", len(json.loads(form)["columns"])) if form else b""
    ids: list[str] = []
    payloads: list[bytes] = []
    vectors: list[bytes] = []
    wire: list[bytes] = []
    size = 0
    for row in _rows(copy):
        (held,) = _length(row, 2)
        (named,) = _length(row, 6 + held)
        begin = 10 + held + named
        name = row[10 + held : begin].decode()
        at = begin
        if form:  # the id in its own type comes before the vector
            at += 4 + _length(row, at)[0]
            wire.append(head)
            wire.append(row[begin:])
        (length,) = _length(row, at)
        if length != 4 + width:
            what = "has no vector" if length < 0 else f"has a vector of {length} bytes"
            raise errors.Invalid(f"row {name} {what}, expected dimension {dimension}")
        ids.append(name)
        vectors.append(row[at + 8 : at + 8 + width])
        payloads.append(_canonical(row[7 : 6 + held], name))  # after jsonb's version byte
        size += len(row)
        if len(ids) == rows_max or size > _BLOCK_BYTES_MAX:
            yield Block(ids, swapped(b"".join(vectors)), payloads, b"".join(wire), form)
            ids, payloads, vectors, wire, size = [], [], [], [], 0
    if ids:
        yield Block(ids, swapped(b"".join(vectors)), payloads, b"".join(wire), form)


def _rows(copy: Iterable[Any]) -> Iterator[bytes]:
    begun = False
    for message in copy:
        data = bytes(message)
        if not begun:
            if not data.startswith(SIGNATURE):
                raise errors.Invalid("the server does not speak COPY BINARY as we know it")
            data, begun = data[len(SIGNATURE) :], True
        if data and data != TRAILER:
            yield data


def _canonical(held: bytes, row: str) -> bytes:
    return b"{}" if held == b"{}" else payload_bytes(json.loads(held), row)


def swapped(data: bytes) -> bytes:
    """Every four bytes the other way round: the bits of a float32 do not pass through a float."""
    words = array("I", data)
    if words.itemsize != 4:
        raise errors.Unsupported(f"no 32-bit words in this Python ({sys.version})")
    words.byteswap()
    return words.tobytes()
