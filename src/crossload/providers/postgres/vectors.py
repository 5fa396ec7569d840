"""The Vectors port over pgvector: binary COPY out and in, float32 bits kept.

Table shape: `id text primary key`, one `vector(n)` column, everything else is payload. Binary formats: PostgreSQL
manual, COPY; pgvector's vector_send (int16 dimension, int16 0, dimension x float4 big-endian)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.vectors import IndexInfo, VectorRow

_OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
_CLASSES = {"cosine": "vector_cosine_ops", "l2": "vector_l2_ops", "ip": "vector_ip_ops"}


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
        text = str(error).strip()
        if "authentication failed" in text or "no password supplied" in text:
            raise errors.NotSignedIn(text, hint="check the url and its passfile") from error
        raise errors.Unavailable(text) from error
    except psycopg.Error as error:
        raise errors.Invalid(str(error).strip()) from error


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
                   order by 1"""
        with translated(), self._connect() as db:
            names = [row[0] for row in db.execute(query)]
        return [self.describe(name) for name in names]

    def describe(self, name: str) -> IndexInfo:
        with translated(), self._connect() as db:
            column, dimension = _vector_column(db, name)
            count = db.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(name))).fetchone()
            definitions = [
                row[0]
                for row in db.execute("select indexdef from pg_indexes where schemaname='public' and tablename=%s", (name,))
                if f"({column} vector_" in row[0]
            ]
        kind, metric = "none", "cosine"
        if definitions:
            kind = "hnsw" if " hnsw " in definitions[0] else "ivfflat"
            metric = next((m for m, ops in _CLASSES.items() if ops in definitions[0]), "cosine")
        return IndexInfo(name, dimension, count[0] if count else 0, metric, kind)

    def export(self, name: str) -> Iterator[VectorRow]:
        with translated(), self._connect() as db:
            column, dimension = _vector_column(db, name)
            query = sql.SQL(
                "copy (select id::text, {vector}, to_jsonb(t) - 'id' - {text} from {table} t order by id collate \"C\")"
                " to stdout with (format binary)"
            ).format(vector=sql.Identifier(column), text=sql.Literal(column), table=sql.Identifier(name))
            with db.cursor() as cursor, cursor.copy(query) as copy:
                copy.set_types(["text", "bytea", "jsonb"])
                for row_id, raw, payload in copy.rows():
                    yield VectorRow(row_id, _little_endian(bytes(raw), dimension), payload)

    def load(self, info: IndexInfo, rows: Iterable[VectorRow]) -> int:
        """All or nothing: the new table takes the old one's name in the transaction that filled it."""
        fresh = f"{info.name}_loading"
        count = 0
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(fresh)))
            iterator = iter(rows)
            first = next(iterator, None)
            columns = sorted(first.payload) if first else []
            db.execute(_create_table(fresh, info.dimension, columns, first))
            copy_sql = sql.SQL("copy {} (id, embedding{}) from stdin with (format binary)").format(
                sql.Identifier(fresh), sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(c)) for c in columns)
            )
            with db.cursor() as cursor, cursor.copy(copy_sql) as copy:
                copy.set_types(["text", "bytea", *("text" if _is_text(first, c) else "jsonb" for c in columns)])
                for row in _chain(first, iterator):
                    values = [row.payload.get(c) for c in columns]
                    shaped = [v if _is_text(first, c) or v is None else Jsonb(v) for c, v in zip(columns, values, strict=True)]
                    copy.write_row([row.id, _pgvector_bytes(row.vector), *shaped])
                    count += 1
            db.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(info.name)))
            db.execute(sql.SQL("alter table {} rename to {}").format(sql.Identifier(fresh), sql.Identifier(info.name)))
        return count

    def build(self, info: IndexInfo) -> None:
        if info.kind == "none":
            return
        with translated(), self._connect() as db:
            column, _ = _vector_column(db, info.name)
            db.execute(
                sql.SQL("create index if not exists {} on {} using {} ({} {})").format(
                    sql.Identifier(f"{info.name}_{info.kind}"), sql.Identifier(info.name), sql.SQL(info.kind),
                    sql.Identifier(column), sql.SQL(_CLASSES[info.metric]),
                )
            )  # fmt: skip

    def search(self, name: str, vector: bytes, k: int, *, exact: bool = False) -> list[str]:
        info = self.describe(name)
        text = "[" + ",".join(repr(value) for value in struct.unpack(f"<{len(vector) // 4}f", vector)) + "]"
        with translated(), self._connect() as db:
            column, _ = _vector_column(db, name)
            if exact:
                db.execute("set local enable_indexscan = off")
            query = sql.SQL("select id::text from {} order by {} {} %s::vector, id limit %s").format(
                sql.Identifier(name), sql.Identifier(column), sql.SQL(_OPERATORS[info.metric])
            )
            return [row[0] for row in db.execute(query, (text, k))]

    def drop(self, name: str) -> None:
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(name)))


def _vector_column(db: psycopg.Connection[Any], table: str) -> tuple[str, int]:
    row = db.execute(
        """select a.attname, a.atttypmod from pg_attribute a join pg_class c on c.oid = a.attrelid
           join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = c.relnamespace
           where c.relname = %s and t.typname = 'vector' and n.nspname = 'public' and not a.attisdropped""",
        (table,),
    ).fetchone()
    if row is None:
        raise errors.NotFound(f"no table {table} with a vector column")
    return row[0], row[1]


def _is_text(first: VectorRow | None, column: str) -> bool:
    return first is not None and isinstance(first.payload.get(column), str)


def _create_table(name: str, dimension: int, columns: list[str], first: VectorRow | None) -> sql.Composed:
    payload = [
        sql.SQL(", {} {}").format(sql.Identifier(c), sql.SQL("text" if _is_text(first, c) else "jsonb")) for c in columns
    ]
    return sql.SQL("create table {} (id text primary key, embedding vector({}){})").format(
        sql.Identifier(name), sql.Literal(dimension), sql.SQL("").join(payload)
    )


def _chain(first: VectorRow | None, rest: Iterator[VectorRow]) -> Iterator[VectorRow]:
    if first is not None:
        yield first
        yield from rest


def _little_endian(raw: bytes, dimension: int) -> bytes:
    if len(raw) != 4 + 4 * dimension:
        raise errors.Invalid(f"a vector of {len(raw)} bytes, expected dimension {dimension}")
    return struct.pack(f"<{dimension}I", *struct.unpack_from(f">{dimension}I", raw, 4))


def _pgvector_bytes(vector: bytes) -> bytes:
    dimension = len(vector) // 4
    return struct.pack(">HH", dimension, 0) + struct.pack(f">{dimension}I", *struct.unpack(f"<{dimension}I", vector))
