"""COPY out and in, and the SQL of a table and of a part of one.

Both binary and text COPY send one row in each message; the header goes with the first (PostgreSQL manual, COPY)."""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterable
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.tables import Chunk, TableInfo
from crossload.providers.postgres.stream import SIGNATURE, TRAILER
from crossload.providers.postgres.vectors import translated

_BATCH_BYTES = 256 * 2**10


def raw(text: str) -> sql.SQL:
    """SQL that the source's server wrote of its own catalogs; it is run with the target role's rights and no more."""
    return sql.SQL(cast("LiteralString", text))


def create(info: TableInfo, room: str, table: str, *, with_key: bool) -> sql.Composed:
    """Sequences are made as the serial and identity columns would have made them, in the table's own schema."""
    counters = {counter.column: counter for counter in info.counters}
    lines: list[sql.Composable] = []
    before: list[sql.Composable] = []
    after: list[sql.Composable] = []
    for column in info.columns:
        parts: list[sql.Composable] = [sql.Identifier(column.name), raw(column.type)]
        counter = counters.get(column.name)
        if column.collation:
            parts.append(sql.SQL("collate {}").format(raw(column.collation)))
        if column.identity and counter:
            parts.append(
                sql.SQL("generated {} as identity (sequence name {} {})").format(
                    raw(column.identity), sql.Identifier(room, counter.name), raw(_without_type(counter.text))
                )
            )
        elif column.generated:
            parts.append(sql.SQL("generated always as {}").format(raw(column.generated)))
        elif counter:
            sequence = sql.Identifier(room, counter.name)
            before.append(sql.SQL("create sequence {} {};").format(sequence, raw(counter.text)))
            after.append(
                sql.SQL("alter sequence {} owned by {};").format(sequence, sql.Identifier(room, table, column.name))
            )
            literal = sql.Literal(sequence.as_string(None))
            parts.append(sql.SQL("default pg_catalog.nextval({}::regclass)").format(literal))
        elif column.default:
            parts.append(sql.SQL("default {}").format(raw(column.default)))
        if not column.nullable:
            parts.append(sql.SQL("not null"))
        lines.append(sql.SQL(" ").join(parts))
    key = next((item for item in info.definitions if item.kind == "primary-key"), None)
    if with_key and key:
        lines.append(sql.SQL("constraint {} {}").format(sql.Identifier(key.name), raw(key.text)))
    # Without vacuum no freed space is used again: rows lie in the order in which they came.
    table_sql = sql.SQL("create table {} ({}) with (autovacuum_enabled = false);").format(
        sql.Identifier(room, table), sql.SQL(", ").join(lines)
    )
    return sql.SQL(" ").join([*before, table_sql, *after])


def _without_type(text: str) -> str:
    return re.sub(r"^AS \S+ ", "", text)  # an identity column's sequence has the column's type


def within(info: TableInfo, chunk: Chunk) -> sql.Composable:
    types = {column.name: column.type for column in info.columns}
    key = sql.SQL(", ").join(sql.Identifier(name) for name in info.primary_key)

    def row(values: tuple[str, ...]) -> sql.Composable:
        pairs = zip(values, info.primary_key, strict=True)
        return sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(value), raw(types[name])) for value, name in pairs
        )

    parts: list[sql.Composable] = []
    if chunk.after is not None:
        parts.append(sql.SQL("({}) > ({})").format(key, row(chunk.after)))
    if chunk.upto is not None:
        parts.append(sql.SQL("({}) <= ({})").format(key, row(chunk.upto)))
    return sql.SQL(" and ").join(parts) if parts else sql.SQL("true")


def selected(info: TableInfo, table: sql.Identifier, where: sql.Composable, *, ordered: bool) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in info.sent)
    query = sql.SQL("select {} from only {} where {}").format(columns, table, where)
    if ordered:
        key = sql.SQL(", ").join(sql.Identifier(name) for name in info.primary_key)
        query = sql.SQL("{} order by {}").format(query, key)
    return query


def chunk_out(
    db: psycopg.Connection[Any], info: TableInfo, table: sql.Identifier, chunk: Chunk, form: str
) -> Generator[bytes]:
    if chunk.by == "key":
        return copy_out(db, selected(info, table, within(info, chunk), ordered=True), form, info, whole_rows=False)
    parts: list[sql.Composable] = []
    if chunk.after:
        parts.append(sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({int(chunk.after[0])},0)")))
    if chunk.upto:
        parts.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({int(chunk.upto[0])},0)")))
    where = sql.SQL(" and ").join(parts) if parts else sql.SQL("true")
    return copy_out(db, selected(info, table, where, ordered=False), form, info, whole_rows=True)


def copy_out(
    db: psycopg.Connection[Any], query: sql.Composed, form: str, info: TableInfo, *, whole_rows: bool
) -> Generator[bytes]:
    statement = sql.SQL("copy ({}) to stdout with (format {})").format(query, raw(form))
    fields, begun = len(info.sent), False
    with translated(), db.cursor() as cursor, cursor.copy(statement) as copy:
        for data in copy:
            block = bytes(data)
            if form == "binary" and not begun:
                if not block.startswith(SIGNATURE):
                    raise errors.Invalid("the server's binary COPY begins with a header that is not understood")
                block, begun = block[len(SIGNATURE) :], True
            if not block or (form == "binary" and block == TRAILER):
                continue
            if whole_rows and not _is_one_row(block, form, fields):
                raise errors.Invalid(
                    f"{info.name}: something between us and the server cuts COPY data at other places than rows",
                    hint="connect to the server itself",
                )
            yield block


def _is_one_row(block: bytes, form: str, fields: int) -> bool:
    if form == "text":
        return block.endswith(b"\n") and block.count(b"\n") == 1  # line ends inside values are escaped
    if len(block) < 2 or int.from_bytes(block[:2], "big") != fields:
        return False
    position = 2
    for _ in range(fields):
        if position + 4 > len(block):
            return False
        (length,) = struct.unpack_from(">i", block, position)
        position += 4 + max(length, 0)
    return position == len(block)


def copy_in(
    db: psycopg.Connection[Any], table: sql.Identifier, info: TableInfo, form: str, rows: Iterable[bytes]
) -> None:
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in info.sent)
    statement = sql.SQL("copy {} ({}) from stdin with (format {})").format(table, columns, raw(form))
    with db.cursor() as cursor, cursor.copy(statement) as copy:
        held = bytearray(SIGNATURE if form == "binary" else b"")
        for row in rows:
            held += row
            if len(held) >= _BATCH_BYTES:
                copy.write(bytes(held))
                held.clear()
        if form == "binary":
            held += TRAILER
        if held:
            copy.write(bytes(held))
