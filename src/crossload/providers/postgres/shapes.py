"""What a table is, read from the catalogs, in texts that make it again (PostgreSQL manual, chapter 53)."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from crossload.ports import errors
from crossload.ports.tables import Column, Counter, Definition, TableInfo

DIALECT = "postgresql"
# Binary forms that have not changed since version 10 and name no object by its number.
_STEADY = frozenset(
    "bool int2 int4 int8 float4 float8 numeric text varchar bpchar name char bytea uuid date time timetz timestamp"
    " timestamptz interval json jsonb inet cidr macaddr macaddr8 bit varbit".split()
)
_COLUMNS = """
select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), not a.attnotnull,
       coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''), a.attidentity::text, a.attgenerated::text,
       case when a.attcollation <> t.typcollation
            then pg_catalog.format('%%I.%%I', kn.nspname, k.collname) else '' end,
       t.typname, tn.nspname, t.typtype::text, t.typelem <> 0 and t.typlen = -1 and e.oid is not null,
       coalesce(e.typname, ''), coalesce(en.nspname, ''), a.attcollation, coalesce(k.collname, ''),
       t.typsend <> 0 and t.typreceive <> 0, pg_catalog.col_description(a.attrelid, a.attnum) is not null
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
left join pg_catalog.pg_collation k on k.oid = a.attcollation
left join pg_catalog.pg_namespace kn on kn.oid = k.collnamespace
left join pg_catalog.pg_type e on e.typarray = t.oid left join pg_catalog.pg_namespace en on en.oid = e.typnamespace
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""
_CONSTRAINTS = """
select contype::text, conname, pg_catalog.pg_get_constraintdef(oid) from pg_catalog.pg_constraint
where conrelid = %s and contype in ('p', 'u', 'c', 'x', 'f') order by contype, conname collate "C" """
_INDEXES = """
select i.relname, x.indisunique, pg_catalog.pg_get_indexdef(x.indexrelid),
       pg_catalog.format('INDEX %%I ON %%I.%%I ', i.relname, n.nspname, c.relname)
from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid
join pg_catalog.pg_class c on c.oid = x.indrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where x.indrelid = %s and x.indisvalid
  and not exists (select from pg_catalog.pg_constraint k
                  where k.conindid = x.indexrelid and k.contype in ('p', 'u', 'x'))
order by i.relname collate "C" """
_KEY = """
select a.attname from pg_catalog.pg_index x
cross join lateral unnest(x.indkey::int2[]) with ordinality as k(attnum, n)
join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum
where x.indrelid = %s and x.indisprimary and x.indisvalid and k.n <= x.indnkeyatts order by k.n"""
_COUNTERS = """
select a.attname, s.relname, pg_catalog.format(
         'AS %%s INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s START WITH %%s CACHE %%s%%s', q.seqtypid::regtype,
         q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache, case when q.seqcycle then ' CYCLE' else '' end),
       n.nspname, pg_catalog.has_sequence_privilege(s.oid, 'select')
from pg_catalog.pg_depend d
join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
join pg_catalog.pg_sequence q on q.seqrelid = s.oid join pg_catalog.pg_namespace n on n.oid = s.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where d.classid = 'pg_catalog.pg_class'::regclass and d.refobjid = %s and d.deptype in ('a', 'i') order by a.attnum"""
_LEFT = """
select (select count(*) from pg_catalog.pg_trigger where tgrelid = c.oid and not tgisinternal),
       (select count(*) from pg_catalog.pg_policy where polrelid = c.oid), c.relrowsecurity,
       (select count(*) from pg_catalog.pg_statistic_ext where stxrelid = c.oid),
       (select count(*) from pg_catalog.pg_inherits where inhrelid = c.oid or inhparent = c.oid),
       c.reloptions is not null, c.relpersistence::text
from pg_catalog.pg_class c where c.oid = %s"""
_KINDS = {"p": "primary-key", "u": "unique", "c": "check", "x": "exclusion"}


def split(name: str) -> tuple[str, str]:
    """`table` is in public, `schema.table` where it says; a dot in a public table's name needs `public.` before it."""
    schema, dot, table = name.partition(".")
    return (schema, table) if dot else ("public", name)


def joined(schema: str, table: str) -> str:
    return table if schema == "public" and "." not in table else f"{schema}.{table}"


def version_of(db: psycopg.Connection[Any]) -> str:
    """The major version."""
    return str(db.info.server_version // 10_000)


def number_of(db: psycopg.Connection[Any], schema: str, table: str) -> int | None:
    """The oid of an ordinary table; Unsupported for other things that can be read like one."""
    row = db.execute(
        """select c.oid, c.relkind::text from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s""",
        (schema, table),
    ).fetchone()
    if row is None:
        return None
    if row[1] != "r":
        kinds = {"p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
        hint = "move its partitions, each a table of its own, and attach them at the target" if row[1] == "p" else ""
        what = kinds.get(row[1], "no ordinary table")
        raise errors.Unsupported(f"{joined(schema, table)} is {what}", hint=hint)
    return int(row[0])


def describe(db: psycopg.Connection[Any], name: str) -> TableInfo:
    schema, table = split(name)
    number = number_of(db, schema, table)
    if number is None:
        raise errors.NotFound(f"no table {name}")
    rows = db.execute(_COLUMNS, (number,)).fetchall()
    columns = tuple(
        Column(r[0], r[1], r[2], "" if r[5] else r[3], {"a": "always", "d": "by default"}.get(r[4], ""),
               f"({r[3]}){' STORED' if r[5] == 's' else ' VIRTUAL'}" if r[5] else "", r[6]) for r in rows
    )  # fmt: skip
    if not any(not column.generated for column in columns):
        raise errors.Unsupported(f"{name} has no column that holds values")
    key = tuple(row[0] for row in db.execute(_KEY, (number,)))
    carries, why = _carries([row for row in rows if not row[5]])
    estimate = db.execute(
        """select case when reltuples < 0 then null else reltuples::bigint end,
                  pg_catalog.pg_table_size(oid), coalesce(pg_catalog.obj_description(oid, 'pg_class'), '')
           from pg_catalog.pg_class where oid = %s""",
        (number,),
    ).fetchone()
    assert estimate is not None  # read a moment ago, in this transaction
    return TableInfo(
        name, DIALECT, version_of(db), columns, key, _definitions(db, number),
        _counters(db, number), estimate[0], estimate[1], carries, why, _key_order(rows, key), estimate[2],
        _left(db, number, rows),
    )  # fmt: skip


def _carries(rows: list[tuple[Any, ...]]) -> tuple[str, str]:
    """The binary form of user-made arrays and rows names types by numbers that differ from database to database, and
    that of reg* is such a number; of some built-in types it is not promised across versions."""
    nowhere: list[str] = []
    unsteady: list[str] = []
    for name, shown, _, _, _, _, _, kind, room, typtype, is_array, inner, inner_room, _, _, sends, _ in rows:
        word, home = (inner, inner_room) if is_array else (kind, room)
        if typtype == "e":
            continue  # an enum's binary form is its label
        if home != "pg_catalog" or not sends or word.startswith("reg") or typtype in ("c", "d"):
            nowhere.append(f"{name} {shown}")
        elif word not in _STEADY:
            unsteady.append(f"{name} {shown}")
    if nowhere:
        return "nowhere", ", ".join(nowhere)
    return ("same-version", ", ".join(unsteady)) if unsteady else ("anywhere", "")


def _key_order(rows: list[tuple[Any, ...]], key: tuple[str, ...]) -> str:
    found = {row[0]: row for row in rows}
    order = "all" if key else "nobody"
    for name in key:
        row = found[name]
        if row[8] != "pg_catalog" or row[9] != "b":
            return "nobody"  # an enum or a domain may have another order over there
        if row[13] == 0 or row[14] in ("C", "POSIX"):
            continue
        if row[14] != "default":
            return "nobody"
        order = "bytewise"
    return order


def _definitions(db: psycopg.Connection[Any], number: int) -> tuple[Definition, ...]:
    found = [
        Definition(_KINDS.get(k, "reference"), name, text) for k, name, text in db.execute(_CONSTRAINTS, (number,))
    ]
    for name, unique, text, head in db.execute(_INDEXES, (number,)):
        _, cut, rest = text.partition(head)
        if not cut:
            raise errors.Invalid(f"index {name}: its definition is not understood: {text}")
        found.append(Definition("unique-index" if unique else "index", name, rest))
    return tuple(found)


def _counters(db: psycopg.Connection[Any], number: int) -> tuple[Counter, ...]:
    found: list[Counter] = []
    for column, name, text, schema, may_read in db.execute(_COUNTERS, (number,)).fetchall():
        value = None
        if may_read:
            query = sql.SQL("select last_value, is_called from {}").format(sql.Identifier(schema, name))
            value = db.execute(query).fetchone()
        found.append(Counter(column, name, text, value[0] if value else None, bool(value[1]) if value else True))
    return tuple(found)


def _left(db: psycopg.Connection[Any], number: int, rows: list[tuple[Any, ...]]) -> tuple[str, ...]:
    row = db.execute(_LEFT, (number,)).fetchone()
    assert row is not None
    triggers, policies, secured, statistics, family, options, persistence = row
    left = [f"{count} {what}" for count, what in
            ((triggers, "trigger(s)"), (policies, "row security polic(ies)"), (statistics, "extended statistics"),
             (family, "inheritance or partition link(s)"), (sum(bool(r[16]) for r in rows), "column comment(s)"))
            if count]  # fmt: skip
    if secured:
        left.append("row security, which is switched on")
    if options:
        left.append("storage settings")
    if persistence == "u":
        left.append("being unlogged")
    left += [f"large objects that column {r[0]} may point at" for r in rows if r[7] == "oid" and r[8] == "pg_catalog"]
    return tuple(left)
