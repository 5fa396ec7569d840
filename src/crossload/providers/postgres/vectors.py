"""The Vectors port over pgvector: binary COPY out and in, float32 bits kept.

Table shape: `id`, one `vector(n)` column, everything else is payload. Binary formats: PostgreSQL manual, COPY;
pgvector's vector_send (int16 dimension, int16 0, dimension x float4 big-endian)."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.vectors import IndexInfo, VectorRow
from crossload.providers.postgres.payload import Columns

_OPERATORS: dict[str, LiteralString] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
_CLASSES: dict[str, LiteralString] = {
    "cosine": "vector_cosine_ops",
    "l2": "vector_l2_ops",
    "ip": "vector_ip_ops",
}
_KINDS: dict[str, tuple[LiteralString, tuple[str, ...]]] = {
    "hnsw": ("hnsw", ("m", "ef_construction")),
    "ivfflat": ("ivfflat", ("lists",)),
}
_NAME_BYTES_MAX = 50  # PostgreSQL cuts names at 63, and we append to them
_EF_SEARCH_MAX = 1000


def open_vectors(settings: Settings) -> PgVectors:
    return PgVectors(settings)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """psycopg's errors in our words (SQLSTATE classes of the PostgreSQL manual, appendix A)."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise errors.AccessDenied(str(error).strip()) from error
    except psycopg.errors.UndefinedTable as error:
        raise errors.NotFound(str(error).strip()) from error
    except psycopg.OperationalError as error:
        raise _connection_error(str(error).strip()) from error
    except psycopg.Error as error:
        raise errors.Invalid(str(error).strip()) from error


def _connection_error(text: str) -> errors.CrossloadError:
    """libpq gives refusals at connection time no SQLSTATE, only words."""
    if "authentication failed" in text or "no password supplied" in text:
        return errors.NotSignedIn(text, hint="check the url and its passfile")
    if "permission denied for database" in text or "is not permitted to log in" in text:
        return errors.AccessDenied(text)
    if re.search(r'database ".*" does not exist', text):
        return errors.NotFound(text)
    return errors.Unavailable(text)


class PgVectors:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._url = settings.require("url")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, connect_timeout=10, application_name="crossload")

    def indexes(self) -> list[IndexInfo]:
        query = """select c.relname from pg_attribute a join pg_class c on c.oid = a.attrelid
                   join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = c.relnamespace
                   where t.typname = 'vector' and c.relkind = 'r' and n.nspname = 'public' and not a.attisdropped
                   order by c.relname collate "C" """
        with translated(), self._connect() as db:
            names = [row[0] for row in db.execute(query)]
        return [self.describe(name) for name in dict.fromkeys(names)]

    def describe(self, name: str) -> IndexInfo:
        with translated(), self._connect() as db:
            _, info = _shape(db, name)
            count = db.execute(sql.SQL("select count(*) from {}").format(_table(name))).fetchone()
        return replace(info, rows=count[0] if count else 0)

    def export(self, name: str) -> Iterator[VectorRow]:
        """Payload values that are NULL are left out: a column that a row does not use says nothing about it."""
        with translated(), self._connect() as db:
            column, info = _shape(db, name)
            others = [sql.SQL("t.{}").format(sql.Identifier(c)) for c in _other_columns(db, name, column)]
            payload = sql.SQL("'{}'::jsonb")
            if others:
                payload = sql.SQL("(select to_jsonb(p) from (select {}) p)").format(sql.SQL(", ").join(others))
            query = sql.SQL(
                'copy (select t.id::text, t.{vector}, {payload} from {table} t order by t.id::text collate "C")'
                " to stdout with (format binary)"
            ).format(vector=sql.Identifier(column), payload=payload, table=_table(name))
            with db.cursor() as cursor, cursor.copy(query) as copy:
                copy.set_types(["text", "bytea", "jsonb"])
                for row_id, raw, held in copy.rows():
                    values = {key: value for key, value in held.items() if value is not None}
                    yield VectorRow(row_id, _little_endian(bytes(raw), info.dimension), values)

    def load(self, info: IndexInfo, rows: Iterable[VectorRow]) -> int:
        """All or nothing: the new table takes the old one's name in the transaction that filled it."""
        if len(info.name.encode()) > _NAME_BYTES_MAX:
            raise errors.Invalid(f"index name {info.name!r} is longer than {_NAME_BYTES_MAX} bytes", hint="shorten it")
        fresh, table = _table(f"{info.name}_loading"), _table(info.name)
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(fresh))
            db.execute(
                sql.SQL("create table {} (id text primary key, embedding vector({}))").format(
                    fresh, sql.Literal(info.dimension)
                )
            )
            count = _fill(db, fresh, iter(rows))
            db.execute(sql.SQL("drop table if exists {}").format(table))
            db.execute(sql.SQL("alter table {} rename to {}").format(fresh, sql.Identifier(info.name)))
            # Without an index nothing else would say by which measure the vectors are meant to be compared.
            note = sql.Literal(json.dumps({"crossload": {"metric": info.metric}}))
            db.execute(sql.SQL("comment on table {} is {}").format(table, note))
        self.build(info)
        return count

    def build(self, info: IndexInfo) -> None:
        if info.kind == "none":
            return
        if info.kind not in _KINDS or info.metric not in _CLASSES:
            raise errors.Unsupported(f"no index of kind {info.kind} and metric {info.metric}", hint="hnsw or ivfflat")
        kind, known = _KINDS[info.kind]
        given = [(name, int(info.params[name])) for name in known if name in info.params]
        options = sql.SQL("")
        if given:
            pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in given]
            options = sql.SQL(" with ({})").format(sql.SQL(", ").join(pairs))
        with translated(), self._connect() as db:
            column, _ = _shape(db, info.name)
            db.execute(
                sql.SQL("create index if not exists {} on {} using {} ({} {}){}").format(
                    sql.Identifier(f"{info.name}_{info.kind}"), _table(info.name), sql.SQL(kind),
                    sql.Identifier(column), sql.SQL(_CLASSES[info.metric]), options,
                )
            )  # fmt: skip

    def search(self, name: str, vector: bytes, k: int, *, exact: bool = False) -> list[str]:
        values = _floats(vector)
        text = "[" + ",".join(map(repr, values)) + "]"
        with translated(), self._connect() as db:
            column, info = _shape(db, name)
            if len(values) != info.dimension:
                raise errors.Invalid(f"{name} has dimension {info.dimension}, the vector {len(values)}")
            if exact:
                db.execute("set local enable_indexscan = off")
            elif info.kind == "hnsw":
                # The index looks at ef_search candidates and can never return more of them.
                candidates = sql.Literal(min(max(2 * k, 100), _EF_SEARCH_MAX))
                db.execute(sql.SQL("set local hnsw.ef_search = {}").format(candidates))
            query = sql.SQL(
                'select s.id from (select id::text collate "C" as id, {} {} %s::vector as far from {}'
                " order by far limit %s) s order by s.far, s.id"
            ).format(sql.Identifier(column), sql.SQL(_OPERATORS[info.metric]), _table(name))
            return [row[0] for row in db.execute(query, (text, k))]

    def drop(self, name: str) -> None:
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(_table(name)))


def _table(name: str) -> sql.Identifier:
    # With its schema, or a missing right on it looks like a missing table.
    return sql.Identifier("public", name)


def _fill(db: psycopg.Connection[Any], table: sql.Identifier, rows: Iterator[VectorRow]) -> int:
    """COPY until a row's payload does not fit the columns, widen them, and go on: payloads differ from row to row."""
    columns, count = Columns(), 0
    row = next(rows, None)
    while row is not None:
        for change in columns.widen(row.payload):
            db.execute(sql.SQL("alter table {} {}").format(table, change))
        statement = sql.SQL("copy {} ({}) from stdin with (format binary)").format(
            table, sql.SQL(", ").join(map(sql.Identifier, ["id", "embedding", *columns.names]))
        )
        with db.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["text", "bytea", *columns.types])
            while row is not None and columns.fit(row.payload):
                copy.write_row([row.id, _pgvector_bytes(row), *columns.values(row.payload)])
                count += 1
                row = next(rows, None)
    return count


def _shape(db: psycopg.Connection[Any], table: str) -> tuple[str, IndexInfo]:
    """The vector column and what is known of the index, rows not counted (-1)."""
    row = db.execute(
        """select a.attname, a.atttypmod, obj_description(c.oid, 'pg_class')
           from pg_attribute a join pg_class c on c.oid = a.attrelid
           join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = c.relnamespace
           where c.relname = %s and t.typname = 'vector' and n.nspname = 'public' and not a.attisdropped
           order by a.attnum""",
        (table,),
    ).fetchone()
    if row is None:
        raise errors.NotFound(f"no table {table} with a vector column")
    column, dimension, comment = row
    kind, metric, params = "none", _noted_metric(comment), dict[str, str]()
    query = "select indexdef from pg_indexes where schemaname = 'public' and tablename = %s order by indexname"
    for (definition,) in db.execute(query, (table,)):
        found = re.search(r" USING (hnsw|ivfflat) \(\"?(.+?)\"? (vector_\w+_ops)\)(?: WITH \((.*?)\))?", definition)
        if found and found[2] == column:
            kind = found[1]
            metric = next((m for m, ops in _CLASSES.items() if ops == found[3]), metric)
            params = dict(re.findall(r"(\w+)\s*=\s*'?(\w+)'?", found[4] or ""))
            break
    return column, IndexInfo(table, dimension, -1, metric, kind, params)


def _noted_metric(comment: str | None) -> str:
    try:
        metric = json.loads(comment or "{}")["crossload"]["metric"]
    except (ValueError, KeyError, TypeError):
        return "cosine"
    return metric if metric in _CLASSES else "cosine"


def _other_columns(db: psycopg.Connection[Any], table: str, vector: str) -> list[str]:
    query = """select a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
               join pg_namespace n on n.oid = c.relnamespace
               where c.relname = %s and n.nspname = 'public' and a.attnum > 0 and not a.attisdropped
               order by a.attnum"""
    return [row[0] for row in db.execute(query, (table,)) if row[0] not in ("id", vector)]


def _floats(vector: bytes) -> list[float]:
    if len(vector) % 4:
        raise errors.Invalid(f"a vector of {len(vector)} bytes is no list of float32")
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def _little_endian(raw: bytes, dimension: int) -> bytes:
    if len(raw) != 4 + 4 * dimension:
        raise errors.Invalid(f"a vector of {len(raw)} bytes, expected dimension {dimension}")
    return _swapped(raw[4:])


def _pgvector_bytes(row: VectorRow) -> bytes:
    if len(row.vector) % 4:
        raise errors.Invalid(f"row {row.id}: a vector of {len(row.vector)} bytes is no list of float32")
    return struct.pack(">HH", len(row.vector) // 4, 0) + _swapped(row.vector)


def _swapped(data: bytes) -> bytes:
    """Every four bytes the other way round: the bits of a float32 do not pass through a float."""
    words = array("I", data)
    if words.itemsize != 4:
        raise errors.Unsupported(f"no 32-bit words in this Python ({sys.version})")
    words.byteswap()
    return words.tobytes()
