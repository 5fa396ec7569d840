"""The Vectors port over pgvector: binary COPY out and in, float32 bits kept.

Table shape: `id`, one `vector(n)` column, everything else is payload. The binary formats are in `stream.py`."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.vectors import Block, IndexInfo, VectorRow, in_order, vector_bytes
from crossload.providers.postgres.payload import Columns
from crossload.providers.postgres.stream import (
    SIGNATURE,
    TRAILER,
    WIRE,
    Column,
    columns_of,
    form_of,
    in_wire_order,
    read_blocks,
    swapped,
    table_of,
)

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
    wire = WIRE

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
            return [_described(db, name) for name in dict.fromkeys(names)]

    def describe(self, name: str) -> IndexInfo:
        with translated(), self._connect() as db:
            return _described(db, name)

    def precision(self, metric: str) -> str:
        return "exact"

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        """Payload values that are NULL are left out: a column that a row does not use says nothing about it."""
        with translated(), self._connect() as db:
            # Payloads and ids are texts that must not depend on how this server is set up.
            db.execute("set timezone to 'UTC'; set datestyle to 'ISO'; set work_mem to '64MB'")
            column, info = _shape(db, name)
            columns = columns_of(db, name)
            form = form_of(columns, column) if wire == WIRE else ""
            others = [c.name for c in columns if c.name not in ("id", column)]
            payload = sql.SQL("'{}'::jsonb")
            if others:
                names = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(other)) for other in others)
                payload = sql.SQL("(select to_jsonb(p) from (select {}) p)").format(names)
            whole = in_wire_order(columns, column) if form else [sql.Identifier(column)]
            query = sql.SQL(
                "copy (select {payload}, t.id::text, {whole} from {table} t{since}"
                ' order by t.id::text collate "C") to stdout with (format binary)'
            ).format(
                payload=payload, whole=sql.SQL(", ").join(sql.SQL("t.{}").format(item) for item in whole),
                table=_table(name), since=_since(after),
            )  # fmt: skip
            with db.cursor() as cursor, cursor.copy(query) as copy:
                yield from read_blocks(copy, info.dimension, form)

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        """All or nothing: the new table takes the old one's name in the transaction that filled it. Rows that come in
        our own wire form make a table of the same columns as theirs, and are not read."""
        if len(info.name.encode()) > _NAME_BYTES_MAX:
            raise errors.Invalid(f"index name {info.name!r} is longer than {_NAME_BYTES_MAX} bytes", hint="shorten it")
        fresh, table = _table(f"{info.name}_loading"), _table(info.name)
        checked = in_order(blocks, info.dimension)
        first = next(checked, None)
        relayed = table_of(first.wire_form, info.dimension) if first is not None else None
        coming = itertools.chain([first] if first is not None else [], checked)
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(fresh))
            if relayed is not None:
                count = _relay(db, fresh, *relayed, coming)
            else:
                kind = sql.Literal(info.dimension)
                db.execute(sql.SQL("create table {} (id text, embedding vector({}))").format(fresh, kind))
                count = _fill(db, fresh, (row for block in coming for row in block.rows()))
            # After the rows: a key that grows row by row costs more than one made of sorted rows.
            db.execute(sql.SQL("alter table {} add primary key (id)").format(fresh))
            db.execute(sql.SQL("drop table if exists {}").format(table))
            db.execute(sql.SQL("alter table {} rename to {}").format(fresh, sql.Identifier(info.name)))
            # Without an index nothing else would say by which measure the vectors are meant to be compared.
            said = {"metric": info.metric, "model": info.model, "model_revision": info.model_revision}
            db.execute(sql.SQL("comment on table {} is {}").format(table, sql.Literal(json.dumps({"crossload": said}))))
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

    def search(self, name: str, vectors: Sequence[bytes], k: int, *, exact: bool = False) -> list[list[str]]:
        found: list[list[str]] = []
        with translated(), self._connect() as db:
            column, info = _shape(db, name)
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
            for vector in vector_bytes(vectors, info):
                text = "[" + ",".join(map(repr, struct.unpack(f"<{info.dimension}f", vector))) + "]"
                found.append([row[0] for row in db.execute(query, (text, k))])
        return found

    def drop(self, name: str) -> None:
        with translated(), self._connect() as db:
            db.execute(sql.SQL("drop table if exists {}").format(_table(name)))


def _table(name: str) -> sql.Identifier:
    # With its schema, or a missing right on it looks like a missing table.
    return sql.Identifier("public", name)


def _since(after: str) -> sql.Composable:
    return sql.SQL(' where t.id::text collate "C" > {}').format(sql.Literal(after)) if after else sql.SQL("")


def _relay(
    db: psycopg.Connection[Any], table: sql.Identifier, vector: str, columns: list[Column], blocks: Iterable[Block]
) -> int:
    """Rows of another table of this kind, as they came: neither vectors nor columns are read here."""
    made = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(column.name), sql.SQL(column.type),  # pyright: ignore[reportArgumentType]
            sql.SQL(" not null" if column.not_null else ""),
        )
        for column in columns
    ]  # fmt: skip
    db.execute(sql.SQL("create table {} ({})").format(table, sql.SQL(", ").join(made)))
    statement = sql.SQL("copy {} ({}) from stdin with (format binary, freeze)").format(
        table, sql.SQL(", ").join(in_wire_order(columns, vector))
    )
    count, form = 0, ""
    with db.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(SIGNATURE)
        for block in blocks:
            form = form or block.wire_form
            if block.wire_form != form:
                raise errors.Invalid("the source changed its columns while it was read", hint="run again")
            copy.write(block.wire)
            count += len(block.ids)
        copy.write(TRAILER)
    return count


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
        head = struct.pack(">HH", len(row.vector) // 4, 0)
        with db.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["text", "bytea", *columns.types])
            while row is not None and columns.fit(row.payload):
                copy.write_row([row.id, head + swapped(row.vector), *columns.values(row.payload)])
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
    noted = _noted(comment)
    kind, metric, params = "none", noted.get("metric", "cosine"), dict[str, str]()
    query = "select indexdef from pg_indexes where schemaname = 'public' and tablename = %s order by indexname"
    for (definition,) in db.execute(query, (table,)):
        found = re.search(r" USING (hnsw|ivfflat) \(\"?(.+?)\"? (vector_\w+_ops)\)(?: WITH \((.*?)\))?", definition)
        if found and found[2] == column:
            kind = found[1]
            metric = next((m for m, ops in _CLASSES.items() if ops == found[3]), metric)
            params = dict(re.findall(r"(\w+)\s*=\s*'?(\w+)'?", found[4] or ""))
            break
    model, revision = (noted.get(key, "unknown") for key in ("model", "model_revision"))
    return column, IndexInfo(table, dimension, -1, metric, kind, params, model, revision)


def _described(db: psycopg.Connection[Any], name: str) -> IndexInfo:
    _, info = _shape(db, name)
    count = db.execute(sql.SQL("select count(*) from {}").format(_table(name))).fetchone()
    return replace(info, rows=count[0] if count else 0)


def _noted(comment: str | None) -> dict[str, str]:
    """What an earlier load wrote beside the table. Comments are anybody's: what makes no sense is passed over."""
    try:
        noted = json.loads(comment or "{}")["crossload"]
        found = {key: value for key, value in noted.items() if isinstance(value, str) and value}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    if found.get("metric") not in _CLASSES:
        found.pop("metric", None)
    return found
