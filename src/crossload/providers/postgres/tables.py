"""The Tables port: COPY out of one REPEATABLE READ snapshot, COPY in, and a swap by moving between schemas.

A move works in two schemas of its own at the target: `crossload_<owner>` holds the table that is being filled, under
its final name and with the final names of its indexes, `crossload_<owner>_before` the table it took the place of.
Changing a table's schema takes its indexes, constraints and owned sequences along, so that nothing is renamed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.tables import Chunk, Definition, Staging, TableInfo
from crossload.providers.postgres.rights import dependents, give_rights
from crossload.providers.postgres.rows import chunk_out, copy_in, copy_out, create, raw, selected, within
from crossload.providers.postgres.shapes import DIALECT, describe, joined, number_of, split, version_of
from crossload.providers.postgres.vectors import translated

_LOCK_WAIT = "10s"
# Both sides must write a value in the same way, see all rows of it or fail, and qualify every name.
_SESSION = b"""set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 3;
set bytea_output = 'hex'; set timezone = 'UTC'; set xmloption = 'content'; set search_path = ''; set row_security = off;
set synchronize_seqscans = off; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0"""


def open_tables(settings: Settings) -> PgTables:
    return PgTables(settings)


class PgTables:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._url = settings.require("url")

    @contextlib.contextmanager
    def _work(self) -> Generator[psycopg.Connection[Any]]:
        """One transaction; our errors and psycopg's undo it."""
        with translated(), self._connected() as db:
            yield db

    def _connected(self) -> psycopg.Connection[Any]:
        db: psycopg.Connection[Any] = psycopg.connect(
            self._url, connect_timeout=10, application_name="crossload", client_encoding="utf8"
        )
        db.execute(_SESSION)
        db.commit()  # or the rollback of a failed transaction would take the settings with it
        return db

    def tables(self) -> list[str]:
        query = """select n.nspname, c.relname from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                   where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
                     and n.nspname <> 'information_schema' and n.nspname !~ '^crossload_[0-9a-f]{12}(_before)?$'
                   order by n.nspname collate "C", c.relname collate "C" """
        with self._work() as db:
            return [joined(schema, table) for schema, table in db.execute(query)]

    def describe(self, name: str) -> TableInfo:
        with self._work() as db:
            return describe(db, name)

    def mark(self, name: str) -> str:
        with self._work() as db:
            return _mark(db, *split(name))

    def bytewise(self) -> bool:
        """C, POSIX and the built-in provider compare code points, and UTF-8 sorts as its code points do."""
        query = """select d.datcollate in ('C', 'POSIX') and coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c'
                          or coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'b'
                   from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()"""
        with self._work() as db:
            row = db.execute(query).fetchone()
        return bool(row and row[0])

    def version(self) -> str:
        with self._work() as db:
            return version_of(db)

    @contextlib.contextmanager
    def snapshot(self, name: str) -> Generator[PgSnapshot]:
        with translated(), self._connected() as db:
            db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            db.read_only = True
            schema, table = split(name)
            if number_of(db, schema, table) is None:
                raise errors.NotFound(f"no table {name}")
            # Its columns may not change while we read it; rows may.
            db.execute(sql.SQL("lock table only {} in access share mode").format(sql.Identifier(schema, table)))
            snapshot = PgSnapshot(db, describe(db, name))
            try:
                yield snapshot
            finally:
                snapshot.close()
            db.rollback()

    def stage(self, info: TableInfo, owner: str, by: str) -> Staging:
        if info.dialect != DIALECT:
            raise errors.Unsupported(f"a table described in {info.dialect} cannot be made here")
        room, (schema, table) = _room(owner), split(info.name)
        with self._work() as db:
            if db.execute("select from pg_catalog.pg_namespace where nspname = %s", (schema,)).fetchone() is None:
                raise errors.NotFound(f"no schema {schema}", hint=f"create it at {self.place} first")
            live = number_of(db, schema, table)
            if live is not None:
                _refuse_dependents(db, info.name, live)
            mark = _mark(db, room, table)
            if mark:
                return Staging(mark, False, _loaded(db, room, table))
            db.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(room)))
            db.execute(create(info, room, table, with_key=by == "key"))
            give_rights(db, (schema, table), live, (room, table))
            return Staging(_mark(db, room, table), True)

    def load(
        self, info: TableInfo, owner: str, chunk: Chunk, form: str, rows: Iterable[bytes],
        check: Callable[[Iterator[bytes]], None],
    ) -> None:  # fmt: skip
        room, (_, table) = _room(owner), split(info.name)
        held = sql.Identifier(room, table)
        with self._work() as db:
            if chunk.by == "key":
                db.execute(sql.SQL("delete from {} where {}").format(held, within(info, chunk)))
                query = selected(info, held, within(info, chunk), ordered=True)
            else:
                if _loaded(db, room, table) != chunk.number:
                    raise errors.Stale(f"chunk {chunk.number} of {info.name} is not the next one")
                # Rows are only ever added, so those of this transaction lie from here on.
                blocks = db.execute(
                    "select pg_relation_size(%s::oid::regclass) / current_setting('block_size')::int",
                    (number_of(db, room, table),),
                ).fetchone()
                first = sql.Literal(f"({max(0, blocks[0] - 1) if blocks else 0},0)")
                mine = sql.SQL("ctid >= {}::tid and xmin = pg_current_xact_id()::xid").format(first)
                query = selected(info, held, mine, ordered=False)
            copy_in(db, held, info, form, rows)
            # Left open, the COPY would keep the connection from rolling back.
            with contextlib.closing(copy_out(db, query, form, info, whole_rows=chunk.by == "blocks")) as back:
                check(back)
                for _ in back:  # stopping in the middle would undo the transaction without a word
                    pass
            if chunk.by == "blocks":
                _note_loaded(db, room, table, chunk.number + 1)

    def staged(self, info: TableInfo, owner: str, chunk: Chunk, form: str) -> Iterator[bytes]:
        held = sql.Identifier(_room(owner), split(info.name)[1])
        with self._work() as db:
            yield from chunk_out(db, info, held, chunk, form)

    def build(self, info: TableInfo, owner: str) -> None:
        room, (_, table) = _room(owner), split(info.name)
        held = sql.Identifier(room, table)
        query = """select conname from pg_catalog.pg_constraint where conrelid = %(t)s::oid
                   union all select c.relname from pg_catalog.pg_index x
                   join pg_catalog.pg_class c on c.oid = x.indexrelid where x.indrelid = %(t)s::oid"""
        with self._work() as db:
            there = {row[0] for row in db.execute(query, {"t": number_of(db, room, table)})}
            for item in info.definitions:
                if item.name in there or item.kind == "reference":
                    continue
                text, name = raw(item.text), sql.Identifier(item.name)
                if item.kind in ("index", "unique-index"):
                    unique = sql.SQL("unique " if item.kind == "unique-index" else "")
                    db.execute(sql.SQL("create {}index {} on {} {}").format(unique, name, held, text))
                else:
                    db.execute(sql.SQL("alter table {} add constraint {} {}").format(held, name, text))
            for counter in info.counters:
                value: sql.Composable = sql.Literal(counter.value)
                if counter.value is None:
                    value = sql.SQL("(select max({}) from {})").format(sql.Identifier(counter.column), held)
                sequence = sql.Literal(sql.Identifier(room, counter.name).as_string(db))
                db.execute(
                    sql.SQL(
                        "select pg_catalog.setval({}::regclass, m.v, {}) from (select {} as v) m where m.v is not null"
                    ).format(sequence, sql.Literal(counter.used), value)
                )  # fmt: skip
            db.execute(sql.SQL("analyze {}").format(held))

    def swap(self, info: TableInfo, owner: str, replaces: str = "") -> None:
        room, (schema, table) = _room(owner), split(info.name)
        live = sql.Identifier(schema, table)
        with self._work() as db:
            db.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            number = number_of(db, schema, table)
            if number is not None:
                db.execute(sql.SQL("lock table only {} in access exclusive mode").format(live))
                _refuse_dependents(db, info.name, number)
                if replaces and _mark(db, schema, table) == replaces:
                    db.execute(sql.SQL("drop table {}").format(live))
                else:
                    before = sql.Identifier(_before(owner))
                    db.execute(sql.SQL("create schema {}").format(before))
                    db.execute(sql.SQL("alter table {} set schema {}").format(live, before))
            db.execute(sql.SQL("alter table {} reset (autovacuum_enabled)").format(sql.Identifier(room, table)))
            db.execute(
                sql.SQL("alter table {} set schema {}").format(sql.Identifier(room, table), sql.Identifier(schema))
            )
            db.execute(sql.SQL("comment on table {} is {}").format(live, sql.Literal(info.comment or None)))
            db.execute(sql.SQL("drop schema {}").format(sql.Identifier(room)))

    def bind(self, name: str, references: Sequence[Definition]) -> list[str]:
        schema, table = split(name)
        failed: list[str] = []
        for item in references:
            try:
                with self._work() as db:
                    db.execute(
                        sql.SQL("alter table {} drop constraint if exists {}, add constraint {} {}").format(
                            sql.Identifier(schema, table), sql.Identifier(item.name), sql.Identifier(item.name),
                            raw(item.text),
                        )
                    )  # fmt: skip
            except (errors.NotFound, errors.Invalid, errors.AccessDenied) as error:
                failed.append(f"{item.name}: {str(error).partition(chr(10))[0]}")
        return failed

    def restore(self, name: str, owner: str, mark: str) -> bool:
        schema, table = split(name)
        before = sql.Identifier(_before(owner), table)
        with self._work() as db:
            db.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            if not mark or _mark(db, schema, table) != mark:
                return False
            db.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, table)))
            if number_of(db, _before(owner), table) is not None:
                db.execute(sql.SQL("alter table {} set schema {}").format(before, sql.Identifier(schema)))
                db.execute(sql.SQL("drop schema {}").format(sql.Identifier(_before(owner))))
        return True

    def discard(self, owner: str) -> None:
        self._drop_room(_room(owner))

    def settle(self, owner: str) -> None:
        self._drop_room(_before(owner))

    def _drop_room(self, room: str) -> None:
        """What we made in it, one by one: a stranger's table in our schema makes the last line fail, and nothing of
        it is gone."""
        query = """select c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = %s and c.relkind = 'r'"""
        with self._work() as db:
            tables = [row[0] for row in db.execute(query, (room,))]
            if len(tables) > 1:
                raise errors.Refused(f"schema {room} holds more than the one table of its move: {', '.join(tables)}")
            for table in tables:
                db.execute(sql.SQL("drop table {}").format(sql.Identifier(room, table)))
            db.execute(sql.SQL("drop schema if exists {}").format(sql.Identifier(room)))


class PgSnapshot:
    """One transaction at REPEATABLE READ: its first statement fixed what all later ones see."""

    def __init__(self, db: psycopg.Connection[Any], info: TableInfo) -> None:
        self._db = db
        self.info = info
        self._table = sql.Identifier(*split(info.name))
        self._reading: Generator[bytes] | None = None

    def close(self) -> None:
        """A read that was left in the middle is ended, or the connection could do nothing more."""
        if self._reading is not None:
            self._reading.close()
        self._reading = None

    def chunks(self, by: str, rows: int) -> Iterator[Chunk]:
        with translated():
            yield from self._by_key(rows) if by == "key" else self._by_blocks(rows)

    def _by_key(self, rows: int) -> Iterator[Chunk]:
        """One step along the key's index for each chunk."""
        key = [sql.Identifier("t", name) for name in self.info.primary_key]  # a bare name would be the text beside it
        shown = sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in key)
        after: tuple[str, ...] | None = None
        for number in range(2**31):
            row = self._db.execute(
                sql.SQL("select {} from only {} t where {} order by {} offset {} limit 1").format(
                    shown, self._table, within(self.info, Chunk(number, "key", after)), sql.SQL(", ").join(key),
                    sql.Literal(rows - 1),
                )
            ).fetchone()  # fmt: skip
            yield Chunk(number, "key", after, tuple(row) if row else None)
            if row is None:
                return
            after = tuple(row)

    def _by_blocks(self, rows: int) -> Iterator[Chunk]:
        found = self._db.execute(
            """select pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int,
                      case when c.reltuples > 0 and c.relpages > 0 then c.reltuples / c.relpages else 50 end
               from pg_catalog.pg_class c where c.oid = %s::oid""",
            (number_of(self._db, *split(self.info.name)),),
        ).fetchone()
        blocks, density = found or (0, 50)
        step = max(1, int(rows / max(density, 1)))
        ends = list(range(step, blocks, step))
        starts: list[int | None] = [None, *ends]
        for number, (start, end) in enumerate(zip(starts, [*ends, None], strict=True)):
            yield Chunk(
                number, "blocks", None if start is None else (str(start),), None if end is None else (str(end),)
            )

    def read(self, chunk: Chunk, form: str) -> Iterator[bytes]:
        """Read it to its end, or nothing more from this snapshot."""
        self.close()
        self._reading = chunk_out(self._db, self.info, self._table, chunk, form)
        return self._reading


def _room(owner: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{12}", owner):
        raise errors.Invalid(f"{owner!r} is no owner of a move: 12 hexadecimal digits")
    return f"crossload_{owner}"


def _before(owner: str) -> str:
    return f"{_room(owner)}_before"


def _mark(db: psycopg.Connection[Any], schema: str, table: str) -> str:
    row = db.execute(
        """select (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()), c.oid
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where n.nspname = %s and c.relname = %s""",
        (schema, table),
    ).fetchone()
    return f"{row[0]}.{row[1]}" if row else ""


def _refuse_dependents(db: psycopg.Connection[Any], name: str, number: int) -> None:
    found = dependents(db, number)
    if found:
        raise errors.Refused(
            f"{name} cannot be replaced: {', '.join(found)} would stay with the old table",
            hint="remove them at the target, move, and make them again",
        )


def _loaded(db: psycopg.Connection[Any], room: str, table: str) -> int:
    row = db.execute(
        """select pg_catalog.obj_description(c.oid, 'pg_class') from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s""",
        (room, table),
    ).fetchone()
    return int(json.loads(row[0])["loaded"]) if row and row[0] else 0


def _note_loaded(db: psycopg.Connection[Any], room: str, table: str, chunks: int) -> None:
    """In the transaction of the chunk itself: killed at any moment, the two say the same."""
    note = sql.Literal(json.dumps({"loaded": chunks}))
    db.execute(sql.SQL("comment on table {} is {}").format(sql.Identifier(room, table), note))
