"""What hangs on a table that is about to be replaced: rights, which are given again, and what cannot be carried."""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

_DEPENDENTS = """
select 'view ' || c.relname from pg_catalog.pg_depend d
  join pg_catalog.pg_rewrite r on r.oid = d.objid join pg_catalog.pg_class c on c.oid = r.ev_class
  where d.classid = 'pg_catalog.pg_rewrite'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass
    and d.refobjid = %(t)s::oid and c.oid <> %(t)s::oid
union select 'foreign key ' || conname || ' of ' || conrelid::regclass from pg_catalog.pg_constraint
  where confrelid = %(t)s::oid and conrelid <> %(t)s::oid and contype = 'f'
union select 'trigger ' || tgname from pg_catalog.pg_trigger where tgrelid = %(t)s::oid and not tgisinternal
union select 'row security policy ' || polname from pg_catalog.pg_policy where polrelid = %(t)s::oid
union select 'row security' from pg_catalog.pg_class where oid = %(t)s::oid and relrowsecurity
union select 'inheritance' from pg_catalog.pg_inherits where inhrelid = %(t)s::oid or inhparent = %(t)s::oid
union select 'publication ' || p.pubname from pg_catalog.pg_publication_rel l
  join pg_catalog.pg_publication p on p.oid = l.prpubid where l.prrelid = %(t)s::oid
union select 'rights on column ' || attname from pg_catalog.pg_attribute
  where attrelid = %(t)s::oid and attacl is not null
order by 1"""
# The old table's rights; or, where there is none, what a table made in that schema would have got. Tables made in our
# own schema get neither.
_ACL = """
select distinct a.privilege_type, case when a.grantee = 0 then '' else pg_catalog.pg_get_userbyid(a.grantee) end,
       a.is_grantable
from (select relacl as acl from pg_catalog.pg_class where oid = %(old)s::oid
      union all
      select d.defaclacl from pg_catalog.pg_default_acl d
      left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace
      where %(old)s::oid is null and d.defaclrole = current_user::regrole and d.defaclobjtype = %(kind)s
        and (n.nspname = %(schema)s or d.defaclnamespace = 0)) s
cross join lateral pg_catalog.aclexplode(s.acl) a
where a.grantee <> (select oid from pg_catalog.pg_roles where rolname = current_user)
order by 1, 2"""
_OWNED = """
select n.nspname, s.relname from pg_catalog.pg_depend d
join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
join pg_catalog.pg_namespace n on n.oid = s.relnamespace
join pg_catalog.pg_class t on t.oid = d.refobjid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
where d.classid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and tn.nspname = %s and t.relname = %s"""


def dependents(db: psycopg.Connection[Any], number: int) -> list[str]:
    """What would go on pointing at the old table, or be lost with it."""
    return [row[0] for row in db.execute(_DEPENDENTS, {"t": number})]


def give_rights(db: psycopg.Connection[Any], live: tuple[str, str], old: int | None, fresh: tuple[str, str]) -> None:
    """Those who could use the old table can use the new one, its sequences included."""
    _give(db, live[0], "r", "table", old, fresh)
    for schema, name in db.execute(_OWNED, fresh).fetchall():
        row = db.execute(
            """select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where n.nspname = %s and c.relname = %s and c.relkind = 'S'""",
            (live[0], name),
        ).fetchone()
        _give(db, live[0], "S", "sequence", row[0] if row else None, (schema, name))


def _give(
    db: psycopg.Connection[Any], schema: str, kind: str, word: str, old: int | None, fresh: tuple[str, str]
) -> None:
    given = db.execute(_ACL, {"old": old, "kind": kind, "schema": schema}).fetchall()
    for privilege, role, grantable in given:
        db.execute(
            sql.SQL("grant {} on {} {} to {}{}").format(
                sql.SQL(cast("LiteralString", privilege)), sql.SQL(cast("LiteralString", word)), sql.Identifier(*fresh),
                sql.Identifier(role) if role else sql.SQL("public"),
                sql.SQL(" with grant option" if grantable and role else ""),
            )
        )  # fmt: skip
