"""The Policy port for a table: what the server's own catalogue says of its protection."""

from __future__ import annotations

from typing import Any

import psycopg

from crossload.ports.errors import NotFound
from crossload.ports.policy import (
    ACCESS_LOGS,
    ENCRYPTION,
    ENCRYPTION_KEY,
    GRANTS,
    PUBLIC_ACCESS,
    REGION,
    TRANSPORT,
    VERSIONING,
    Fact,
    Posture,
)
from crossload.ports.provider import Settings
from crossload.providers.postgres.vectors import translated

_CAPABILITIES = {
    "SELECT": ("objects.list", "objects.read"),
    "INSERT": ("objects.write",),
    "UPDATE": ("objects.write",),
    "DELETE": ("objects.delete",),
    "TRUNCATE": ("objects.delete",),
}
_GRANTS = """select case when a.grantee = 0 then '*' else pg_get_userbyid(a.grantee) end, a.privilege_type
             from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
             where c.oid = to_regclass(%s)"""
_NOT_ITS_BUSINESS = "a database server does not know how its disk is kept"


def open_policy(settings: Settings) -> PgPolicy:
    return PgPolicy(settings)


class PgPolicy:
    """Reads catalogues that every role may read; no row of the table is touched."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._url = settings.require("url")

    def posture(self, bucket: str) -> Posture:
        with translated(), psycopg.connect(self._url, connect_timeout=10) as db:
            if not _one(db, "select to_regclass(%s) is not null", _quoted(bucket)):
                raise NotFound(f"{self.place} has no table {bucket}")
            grants: dict[str, set[str]] = {}
            for member, privilege in db.execute(_GRANTS, (_quoted(bucket),)).fetchall():
                for capability in _CAPABILITIES.get(str(privilege), ()):
                    grants.setdefault(capability, set()).add(str(member))
            encrypted = _one(db, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            logged = str(_one(db, "select current_setting('log_statement', true)"))
        facts = {
            GRANTS: Fact({name: sorted(members) for name, members in sorted(grants.items())}, "pg_class.relacl"),
            # TLS on this connection does not show that others must use it; without it, plain is possible for sure.
            TRANSPORT: Fact.unknown("pg_stat_ssl: this connection is encrypted, others need not be")
            if encrypted
            else Fact("plain-possible", "pg_stat_ssl: this connection is not encrypted"),
            ACCESS_LOGS: Fact("on" if logged in ("all", "mod") else "off", f"log_statement is {logged}"),
            PUBLIC_ACCESS: Fact.unknown("who may connect is in pg_hba.conf, which is not readable here"),
            **dict.fromkeys((ENCRYPTION, ENCRYPTION_KEY, VERSIONING, REGION), Fact.unknown(_NOT_ITS_BUSINESS)),
        }
        return Posture(self.place, bucket, facts)


def _one(db: psycopg.Connection[Any], query: str, *arguments: object) -> Any:
    row = db.execute(query, arguments).fetchone()  # pyright: ignore[reportArgumentType]
    return row[0] if row else None


def _quoted(name: str) -> str:
    """to_regclass reads its text as SQL does: without quotes `Chunks` would become `chunks`."""
    return 'public."' + name.replace('"', '""') + '"'
